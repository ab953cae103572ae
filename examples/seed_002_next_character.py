"""Seed 002, classification: the next character of Anna Karenina, after W. Neill's notebook (the source of the post).

The document: sorted(set(text)) as the vocabulary; the last tenth is the validation set; the text as 128 parallel
streams, 100 characters per step, one-hot; LSTM(83,390), two layers, dropout .5, a linear layer; Adam with a learning
rate of .01, gradients clipped at 5, the state carried through the epoch; 10 epochs; then generated text, each character
sampled from the 5 most likely.

Its mistakes: the printed losses are sums over 139 and 15 batches; characters that do not fill a batch are dropped from
both parts, and the last target is the first character of the part; the vocabulary includes characters that occur in
the validation set only; one-hot vectors of the whole book, 83 floats per character, are built at once in numpy.

--mode honest trains with this project's own next-token model: a vocabulary of the training part, an embedding, a
decaying learning rate, and nats per character over the whole validation part.

By default parity reads 3 million characters, ten minutes on one core: 10 epochs of the bundled sample, 1 of the book.
honest takes a minute for the sample, six for the book. A GPU is used if available.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from seeds import log_line, parse_options, print_result, read_text, run_script
from torch import Tensor, nn

from deploy.training.registration import training_progress
from deploy.training.texts import CHARACTERS
from model.networks.protocol import Batch, State, loss
from model.networks.text import NextToken
from model.training.loop import choose_device
from model.training.next_token import NextTokenConfig, PreparedTokens, fit_next_token, next_token_card

STREAMS, STEPS, EPOCHS, LEARNING_RATE, CLIP = 128, 100, 10, 0.01, 5.0
SETTINGS = {"hidden": 390, "layers": 2, "dropout": 0.5, "embedding": 0}
"""The hyperparameters of the notebook."""
CHARACTERS_READ = 3_000_000
"""How many characters parity reads by default, over all epochs."""
PRIMER, LENGTH, TOP_K = "And Victoria sang ", 300, 5


def split_text(text: str) -> tuple[str, str]:
    """The training part and the validation part, the last tenth."""
    cut = len(text) - len(text) // 10
    return text[:cut], text[cut:]


def get_batches(tokens_T: Tensor, streams: int = STREAMS, steps: int = STEPS) -> Iterator[Batch]:
    """Tokens as parallel streams, `steps` per batch; the remainder is dropped, as in the notebook."""
    kept = len(tokens_T) // (streams * steps) * streams * steps
    x, y = tokens_T[:kept].view(streams, -1), tokens_T.roll(-1)[:kept].view(streams, -1)
    for start in range(0, x.shape[1], steps):
        part = slice(start, start + steps)
        yield Batch(task="next_token", x=x[:, part], y=y[:, part], carried=start > 0)


def build_network(tokens: int) -> NextToken:
    """The notebook's network: dropout between the layers only, none before the head."""
    model = NextToken(tokens, SETTINGS)
    model.dropout = nn.Dropout(0.0)
    return model


def run_epoch(
    model: NextToken, batches: Iterator[Batch], optimiser: torch.optim.Optimizer | None = None
) -> tuple[float, float]:
    """The sum of the batches' losses, and nats per character; trains if there is an optimizer."""
    losses: list[float] = []
    state: State | None = None
    for batch in batches:
        logits, state = model.outputs(batch, state)
        total, counted = loss(logits, batch)
        mean = total / counted
        if optimiser:
            optimiser.zero_grad()
            mean.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
        losses.append(mean.item())
    return sum(losses), sum(losses) / len(losses)


def parity(text: str, epochs: int | None, seed: int) -> tuple[float, str]:
    """Trains as the notebook does; the validation loss in nats per character, and a generated text."""
    torch.manual_seed(seed)
    vocabulary, device = sorted(set(text)), choose_device("auto")
    numbers = {character: number for number, character in enumerate(vocabulary)}
    train, validation = (torch.tensor([numbers[c] for c in part], device=device) for part in split_text(text))
    streams = min(STREAMS, len(validation) // STEPS)  # fewer for a short text
    model = build_network(len(vocabulary)).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    nats = math.nan
    for epoch in range(epochs or min(EPOCHS, max(1, CHARACTERS_READ // len(text)))):
        model.train()
        total, train_nats = run_epoch(model, get_batches(train, streams), optimiser)
        model.eval()
        with torch.no_grad():
            validation_total, nats = run_epoch(model, get_batches(validation, streams))
        log_line(
            f"epoch {epoch}: training {total:.2f} ({train_nats:.3f} nats per character), "
            f"validation {validation_total:.2f} ({nats:.3f})"
        )
    prompt = [numbers[character] for character in PRIMER if character in numbers]
    return nats, "".join(generate(model.cpu(), prompt, vocabulary.__getitem__))


def honest(text: str, config: NextTokenConfig) -> tuple[float, str]:
    """Trains as `tidecast train --task next-token` does; validation nats per character, and a generated text."""
    train, validation = split_text(text)
    vocabulary = CHARACTERS.fitted([train])
    encoder = vocabulary.encoder()
    x, y = (np.array(encoder.encode(part), np.int64) for part in (train, validation))
    log_line(f"{len(x):,} training characters, {len(y):,} validation characters, {len(vocabulary)} tokens")
    card = next_token_card(msgspec.to_builtins(vocabulary), len(vocabulary), config, "seed-002")
    with training_progress(lambda epoch: f"{epoch.validation_loss:.3f} nats") as on_step:
        fitted = fit_next_token(PreparedTokens(x, y, card, config), on_step)
    log_line(f"epoch {fitted.card.metrics['best_epoch']:.0f} of {len(fitted.history)} was the best")
    torch.manual_seed(config.seed)
    return fitted.card.metrics["validation_nats"], "".join(
        generate(fitted.model, encoder.encode(PRIMER), vocabulary.decoded)
    )


@torch.no_grad()
def generate(model: NextToken, tokens: Sequence[int], decoded: Callable[[int], str]) -> Iterator[str]:
    """Continues a prompt; each character is sampled from the TOP_K most likely ones."""
    h, c = model.start(1)
    for _ in range(LENGTH):
        logits, h, c = model(torch.tensor([tokens]), h, c)
        probabilities, candidates = logits[0, -1].softmax(0).topk(TOP_K)
        tokens = [int(candidates[torch.multinomial(probabilities, 1)])]
        yield decoded(tokens[0])


def main() -> None:
    """Runs the chosen mode."""
    options = parse_options(__doc__ or "", "anna.txt")
    torch.set_num_threads(1)
    with print_result(options) as result:
        text, config = read_text(options.data), NextTokenConfig(seed=options.seed)
        if options.mode == "parity":
            result["nats"], continued = parity(text, options.epochs, options.seed)
        else:
            result["nats"], continued = honest(text, replace(config, epochs=options.epochs or config.epochs))
        log_line(f"{result['nats'] / math.log(2):.3f} bits per character\n\n{PRIMER}{continued}\n")


if __name__ == "__main__":
    run_script(main)
