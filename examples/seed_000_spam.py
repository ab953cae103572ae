"""Seed 000: spam among short messages, by words; after Y. Paneliya's "Decoding LSTM using PyTorch".

What it did: a vocabulary of all messages; five words of each, padded with 0; a batch of four through Embedding(V,10),
two layers of LSTM(10,3) and Linear(3,1), each shape printed on the way.

What is wrong: the loop breaks after a batch and nothing is judged; the vocabulary knows the test's words, and a word
that it doesn't know is an error; number 0 is the most frequent word and the padding as well; nearly every message is
longer than five words; the output is read at the last step, padding or not.

honest mends: this project's own path, with a vocabulary of the training rows, whole messages, and every real step
counted; the test is the document's, the file's last fifth, and looked at once. --words N keeps the first N words of a
message, in this mode only.

parity is the document's way, but for the words: this project's rule finds them, since nltk's needs data that is
fetched; no shape depends on it. An epoch is one batch there, as the loop breaks; one by itself. Its accuracy on the
test, which the document left out, is mostly that of saying one label always.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from seeds import Options, finished, options, run, say, sms
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from deploy.training.registration import training_progress
from deploy.training.texts import ClassifyJob, fitted_vocabulary, format_report
from model.networks.protocol import Core, Head, Select
from model.training.classification import (
    ClassificationReport,
    ClassifyConfig,
    Ints,
    Parts,
    PreparedTexts,
    classifier_card,
    evaluate,
    fit_classifier,
    probabilities,
)
from model.training.loop import OnStep, TrainConfig, repeatable
from pipeline.windows.tokens import Vocabulary

LABELS = ("ham", "spam")
BATCH, STEPS = 4, 5


class LastStep(nn.Module):
    """The network of three documents, in the protocol's parts; the head sees the last step, padding or not."""

    def __init__(self, tokens: int, width: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.encode = nn.Embedding(tokens, width)
        self.core = Core(width, hidden, layers, dropout)
        self.select = Select("last_padded")
        self.dropout = nn.Dropout(dropout)
        self.head = Head(hidden, 1)

    def steps(self, x_BS: Tensor) -> dict[str, Tensor]:
        """What becomes of tokens, under the names that document 000 prints; at the end a probability (B,)."""
        embeds = self.encode(x_BS)
        out_BSH, (h, c) = self.core(embeds)
        last = self.select(out_BSH)
        probability = self.head(self.dropout(last)).sigmoid().squeeze(1)
        return {"X": x_BS, "embed": embeds, "lstm_out": out_BSH, "h": h, "c": c, "last": last, "out": probability}

    def forward(self, x_BS: Tensor) -> Tensor:
        """(B,S) int64 -> (B,)."""
        return self.steps(x_BS)["out"]

    def beyond_embedding(self) -> int:
        """Its parameters, without the embedding's."""
        return sum(weight.numel() for part in (self.core, self.head) for weight in part.parameters())

    def learn(self, optimiser: torch.optim.Optimizer, x_BS: Tensor, y_B: Tensor) -> Tensor:
        """One step of the optimiser; the batch's mean loss before it, nats."""
        optimiser.zero_grad()
        loss = binary_cross_entropy(self(x_BS), y_B)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def accuracy(self, x_BS: Tensor, y_B: Tensor) -> float:
        """The share of rows that are on the right side of one half."""
        return float(((self.eval()(x_BS) > 0.5) == (y_B > 0.5)).float().mean())


def filled(rows: Sequence[Sequence[int]], steps: int) -> Tensor:
    """Rows of numbers, (N,S): their beginnings, with 0 after a shorter one."""
    return torch.tensor([[*row[:steps], *[0] * (steps - len(row))] for row in rows])


def numbered(texts: Sequence[str]) -> tuple[Tensor, int]:
    """The document's tokens (N,5), and how many different ones all texts have; the most frequent one is 0."""
    vocabulary = Vocabulary(lower=False, digits=False).fitted(texts)
    numbers = {token: number for number, token in enumerate(vocabulary.entries)}
    return filled([[numbers[token] for token in vocabulary.split(text)] for text in texts], STEPS), len(numbers)


def training(texts: Sequence[str]) -> int:
    """How many texts are learnt from, from the file's top."""
    return int(len(texts) * 0.8)


def parity(texts: Sequence[str], y: Ints, seed: int, batches: int) -> tuple[LastStep, dict[str, Tensor], float]:
    """The document's network after so many batches, what the first one becomes in it, and its accuracy."""
    (x, tokens), labels, cut = numbered(texts), torch.from_numpy(y).float(), training(texts)
    with repeatable(TrainConfig(seed=seed)):
        model = LastStep(tokens, width=10, hidden=3, layers=2, dropout=0.3)
        optimiser = torch.optim.Adam(model.parameters())
        for rows in (torch.randperm(cut)[:BATCH] for _ in range(batches)):
            model.learn(optimiser, x[rows], labels[rows])
        seen = model.steps(x[:BATCH])
        return model, seen, model.accuracy(x[cut:], labels[cut:])


def honest(texts: Sequence[str], y: Ints, job: ClassifyJob) -> ClassificationReport:
    """How the project's own path does on the last fifth."""
    cut = training(texts)
    train, test = np.arange(cut), np.arange(cut, len(texts))
    known = set(texts[:cut])
    say(f"{sum(text in known for text in texts[cut:])} of the test's {len(test)} messages stand in training as well")
    with training_progress(lambda epoch: f"training loss {epoch.train_loss:.3f}") as on_step:
        return judged(texts, y, LABELS, train, test, job, on_step)


def judged(
    texts: Sequence[str],
    y: Ints,
    labels: Sequence[str],
    train: Ints,
    test: Ints,
    job: ClassifyJob,
    on_step: OnStep | None = None,
) -> ClassificationReport:
    """Vocabulary and weights from the training rows, by a recipe that was found elsewhere; one look at the test's."""
    vocabulary = fitted_vocabulary(job, [texts[row] for row in train])
    data, settings = vocabulary.encoder().batch(texts), msgspec.to_builtins(vocabulary)
    card = classifier_card(labels, settings, len(vocabulary), job.config, job.name)
    parts = Parts(train, np.empty(0, np.int64), test)
    fitted = fit_classifier(PreparedTexts(data, y, parts, card, job.config), on_step)
    return evaluate(probabilities(fitted.model, data, test), y[test])


def job_for(asked: Options, name: str, max_len: int | None = None) -> ClassifyJob:
    """The project's defaults, but for what was asked."""
    config = ClassifyConfig(seed=asked.seed)
    config = config if asked.epochs is None else replace(config, epochs=asked.epochs)
    return ClassifyJob(name=name, max_len=max_len, config=config)


def main() -> None:
    """What was asked for."""
    asked = options(__doc__ or "", "sms.tsv", words={"type": int, "metavar": "N", "help": "keep the first N words"})
    texts, labels = sms(asked.data)
    y = np.array([LABELS.index(label) for label in labels], np.int64)
    with finished(asked) as result:
        if asked.mode == "parity":
            model, seen, result["accuracy"] = parity(texts, y, asked.seed, asked.epochs or 1)
            say(f"Batch size: {len(seen['X'])}")
            for name, tensor in seen.items():
                say(f"{name} shape: {list(tensor.shape)}")
            same = torch.equal(seen["last"], seen["h"][-1])
            say(f"last step == h_n[-1]: {same}; {model.beyond_embedding()} parameters beyond the embedding")
        else:
            report = honest(texts, y, job_for(asked, "spam", asked.own["words"]))
            say(format_report(report))
            result.update(accuracy=report.accuracy, mcc=report.mcc)


if __name__ == "__main__":
    run(main)
