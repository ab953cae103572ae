"""Seed 002, classification: Anna Karenina's next character, by W. Neill's notebook that the post goes back to.

What it did: sorted(set(text)) as the vocabulary; the last tenth validates; the text as 128 streams side by side, 100
characters a step, one-hot; LSTM(83,390), two layers, dropout .5, a linear layer; Adam at .01, gradients clipped at 5,
the state carried through the epoch; 10 epochs; then a text, each character drawn from the 5 likeliest.

What is wrong: the losses printed are sums over 139 and 15 batches; what does not fill a batch is left out of both
parts, and the last target is the part's first character; the vocabulary has characters that only the validation
holds; one-hot makes 83 floats of each character, in numpy, of the whole book at once.

honest mends it: the project's own path, with a vocabulary of the training part, an embedding, a learning rate that
falls, and nats a character over the whole validation part.

By itself parity reads 3 million characters, ten minutes on one core: 10 epochs of the carried sample, 1 of the book.
honest takes a minute for the sample, six for the book. A GPU is taken where there is one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from seeds import finished, lines_of, options, run, say
from torch import Tensor, nn

from deploy.training.registration import training_progress
from deploy.training.texts import CHARACTERS
from model.networks.protocol import Batch, State, loss
from model.networks.text import NextToken
from model.training.loop import choose_device
from model.training.next_token import NextTokenConfig, PreparedTokens, fit_next_token, next_token_card

STREAMS, STEPS, EPOCHS, LEARNING_RATE, CLIP = 128, 100, 10, 0.01, 5.0
SETTINGS = {"hidden": 390, "layers": 2, "dropout": 0.5, "embedding": 0}
"""The notebook's."""
CHARACTERS_READ = 3_000_000
"""What parity reads by itself, in all epochs together."""
PRIMER, LENGTH, TOP_K = "And Victoria sang ", 300, 5


def parts(text: str) -> tuple[str, str]:
    """The text to train on, and its last tenth."""
    cut = len(text) - len(text) // 10
    return text[:cut], text[cut:]


def get_batches(tokens_T: Tensor, streams: int = STREAMS, steps: int = STEPS) -> Iterator[Batch]:
    """A text's tokens as streams side by side, some steps at a time; what is left over is not used."""
    kept = len(tokens_T) // (streams * steps) * streams * steps
    x, y = tokens_T[:kept].view(streams, -1), tokens_T.roll(-1)[:kept].view(streams, -1)
    for start in range(0, x.shape[1], steps):
        part = slice(start, start + steps)
        yield Batch(task="next_token", x=x[:, part], y=y[:, part], carried=start > 0)


def network(tokens: int) -> NextToken:
    """The notebook's network: dropout lies between its layers alone, and not before the head."""
    model = NextToken(tokens, SETTINGS)
    model.dropout = nn.Dropout(0.0)
    return model


def one_pass(
    model: NextToken, batches: Iterator[Batch], optimiser: torch.optim.Optimizer | None = None
) -> tuple[float, float]:
    """The sum of the batches' losses, and nats a character; the weights are learnt where there is an optimiser."""
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
    """Trains as the notebook does: nats a character of the validation after the last epoch, and a text drawn."""
    torch.manual_seed(seed)
    vocabulary, device = sorted(set(text)), choose_device("auto")
    numbers = {character: number for number, character in enumerate(vocabulary)}
    train, validation = (torch.tensor([numbers[c] for c in part], device=device) for part in parts(text))
    streams = min(STREAMS, len(validation) // STEPS)  # the notebook's, or where the text is short what it fills
    model = network(len(vocabulary)).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    nats = math.nan
    for epoch in range(epochs or min(EPOCHS, max(1, CHARACTERS_READ // len(text)))):
        model.train()
        total, learnt = one_pass(model, get_batches(train, streams), optimiser)
        model.eval()
        with torch.no_grad():
            judged, nats = one_pass(model, get_batches(validation, streams))
        say(
            f"epoch {epoch}: training {total:.2f} ({learnt:.3f} nats a character), validation {judged:.2f} ({nats:.3f})"
        )
    prompt = [numbers[character] for character in PRIMER if character in numbers]
    return nats, "".join(drawn(model.cpu(), prompt, vocabulary.__getitem__))


def honest(text: str, config: NextTokenConfig) -> tuple[float, str]:
    """Trains as `tidecast train --task next-token` does: nats a character of the validation, and a text drawn."""
    train, validation = parts(text)
    vocabulary = CHARACTERS.fitted([train])
    encoder = vocabulary.encoder()
    x, y = (np.array(encoder.encode(part), np.int64) for part in (train, validation))
    say(f"{len(x):,} characters to learn from, {len(y):,} to judge by, {len(vocabulary)} tokens")
    card = next_token_card(msgspec.to_builtins(vocabulary), len(vocabulary), config, "seed-002")
    with training_progress(lambda epoch: f"{epoch.validation_loss:.3f} nats") as on_step:
        fitted = fit_next_token(PreparedTokens(x, y, card, config), on_step)
    say(f"epoch {fitted.card.metrics['best_epoch']:.0f} of {len(fitted.history)} was best")
    torch.manual_seed(config.seed)
    return fitted.card.metrics["validation_nats"], "".join(
        drawn(fitted.model, encoder.encode(PRIMER), vocabulary.decoded)
    )


@torch.no_grad()
def drawn(model: NextToken, tokens: Sequence[int], decoded: Callable[[int], str]) -> Iterator[str]:
    """What follows the tokens of a prompt, each character drawn from the likeliest ones."""
    h, c = model.start(1)
    for _ in range(LENGTH):
        logits, h, c = model(torch.tensor([tokens]), h, c)
        odds, likeliest = logits[0, -1].softmax(0).topk(TOP_K)
        tokens = [int(likeliest[torch.multinomial(odds, 1)])]
        yield decoded(tokens[0])


def main() -> None:
    """What was asked for."""
    asked = options(__doc__ or "", "anna.txt")
    torch.set_num_threads(1)
    with finished(asked) as result:
        text, config = lines_of(asked.data), NextTokenConfig(seed=asked.seed)
        if asked.mode == "parity":
            result["nats"], continued = parity(text, asked.epochs, asked.seed)
        else:
            result["nats"], continued = honest(text, replace(config, epochs=asked.epochs or config.epochs))
        say(f"{result['nats'] / math.log(2):.3f} bits a character\n\n{PRIMER}{continued}\n")


if __name__ == "__main__":
    run(main)
