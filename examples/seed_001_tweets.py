"""Seed 001: sentiment of tweets, by characters; after E. Bujokas's "Mastering Long Short-Term Memory with Python".

What it did: the gates, on a cell of scalars; then 200 characters of each of 34,410 tweets through Embedding(275,16),
LSTM(16,1) and Linear(1,1), 100 epochs, and .6448 of 8,603 others right. Always saying the same gets .5192.

What is wrong: one hidden value, read after up to 199 steps of padding; and the file has each tweet in several wordings,
under one id, which a random split puts on both sides.

honest mends: this project's own path, by words, every real step counted, five networks averaged; no id lies in both
training and test. --split leaky takes the document's random split, in this mode only: a figure to compare,
not to believe. Learning by heart pays there, so it takes more epochs.

parity takes 21 epochs by itself, of some 10 seconds each on one core, and says the loss of every 20th as the document
does; --epochs 100 for all of it. Whether it learns at all depends on the draw: --seed 3 does, seed 0 does not.

Tweets can't be carried: without --data, sentences of film reviews stand in. The file is twitter_training.csv, gzipped
or not, of the Kaggle set "Twitter Sentiment Analysis" (jp797498e).
"""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import atanh, log
from pathlib import Path

import numpy as np
import torch
from cell import ScalarCell, ScalarStep
from seed_000_spam import LastStep, filled, job_for, judged
from seeds import Options, finished, lines_of, options, run, say, sentences
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from torch import Tensor

from deploy.training.registration import training_progress
from deploy.training.texts import format_report
from model.training.classification import ClassificationReport, Ints
from model.training.loop import TrainConfig, repeatable

LABELS = ("Positive", "Negative")
NOTHING = "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null|"
"""What pandas reads as no text, the empty one among it."""
TEST, SPLIT_SEED = 0.2, 42
STEPS, BATCH, EPOCHS = 200, 32, 21
MEMBERS, LEAKY_EPOCHS = 5, 6


@dataclass(frozen=True, slots=True)
class Tweets:
    """Texts in the file's order; the wordings of one tweet share an id."""

    ids: Sequence[int]
    texts: Sequence[str]
    y: Ints
    """(N,), 1: negative."""


def tweets(path: Path) -> Tweets:
    """The positive and negative rows `id, entity, sentiment, text` that have a text."""
    rows = [row for row in csv.reader(io.StringIO(lines_of(path))) if len(row) == 4 and row[2] in LABELS]
    kept = [row for row in rows if row[3] not in NOTHING.split("|")]
    if not kept:
        sys.exit(f"{path}: no rows of id, entity, Positive or Negative, and a text")
    ids, _, labels, texts = zip(*kept, strict=True)
    return Tweets([int(name) for name in ids], texts, np.array([LABELS.index(label) for label in labels], np.int64))


def stand_in(path: Path) -> Tweets:
    """Sentences of film reviews, each with an id of its own."""
    texts, labels = sentences(path)
    say("no tweets are carried here (name some with --data): sentences of film reviews stand in, each by itself")
    y = np.array([label == "neg" for label in labels], np.int64)
    return Tweets(range(len(texts)), texts, y)


def cut(data: Tweets, rows: Ints, split: str, share: float, seed: int) -> tuple[Ints, Ints]:
    """The rows to keep and the share drawn from them: by tweet id, or leaky, row by row as in the document."""
    if split == "leaky":
        kept, drawn = train_test_split(rows, test_size=share, random_state=seed)
        return kept, drawn
    by_id = GroupShuffleSplit(1, test_size=share, random_state=seed)
    kept, drawn = next(by_id.split(rows, groups=np.asarray(data.ids)[rows]))
    return rows[kept], rows[drawn]


def characters(texts: Sequence[str]) -> dict[str, int]:
    """The document's vocabulary: characters from 1 on as they first come up, and then the unknown one."""
    return {token: number for number, token in enumerate([*dict.fromkeys(" ".join(texts)), "<UNK>"], start=1)}


def described(lengths: Sequence[int]) -> dict[str, float]:
    """What pandas' describe says of numbers."""
    least, low, middle, high, most = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1]).tolist()
    spread = {"mean": float(np.mean(lengths)), "std": float(np.std(lengths, ddof=1))}
    return spread | {"min": least, "25%": low, "50%": middle, "75%": high, "max": most}


def trained(model: LastStep, x_NS: Tensor, y_N: Tensor, epochs: int) -> None:
    """Trains as the document does, and says every 20th epoch's mean loss."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        batches = torch.split(torch.randperm(len(y_N)), BATCH)
        loss = torch.stack([model.learn(optimiser, x_NS[rows], y_N[rows]) for rows in batches]).mean()
        if epoch % 20 == 0:
            say(f"Epoch: {epoch}, Loss: {loss:.5f}")


def parity(data: Tweets, seed: int, epochs: int) -> tuple[LastStep, float]:
    """The document's network after so many epochs, and the test's accuracy."""
    train, test = cut(data, np.arange(len(data.y)), "leaky", TEST, SPLIT_SEED)
    numbers = characters([data.texts[row] for row in train])
    say(f"{len(train):,} texts to learn from, {len(test):,} to judge by; the size of the vocabulary is {len(numbers)}")
    lengths = described([len(data.texts[row]) for row in train])
    say("lengths: " + ", ".join(f"{name} {value:.6f}" for name, value in lengths.items()))
    unknown = numbers["<UNK>"]
    x = filled([[numbers.get(token, unknown) for token in text] for text in data.texts], STEPS)
    y = torch.from_numpy(data.y).float()
    with repeatable(TrainConfig(seed=seed)):
        model = LastStep(len(numbers) + 1, width=16, hidden=1)
        trained(model, x[train], y[train], epochs)
        return model, model.accuracy(x[test], y[test])


def scalar_chain() -> ScalarStep:
    """The document's step of a scalar cell at .5; the weights it drew are not known: these are ours, biases fitted."""
    x, h, c = 0.5, -0.5617438418718841, -0.8221542907288696
    w1, w2, w3, w4, w5, w6, w7, w8 = weights = (0.3, -1.1, 0.7, 0.4, -0.6, 0.9, 1.3, -0.2)
    forget, i, output = (log(gate / (1 - gate)) for gate in (0.4541219, 0.8, 0.9351025))
    b1, b2 = forget - w1 * x - w2 * h, atanh(-0.8195503) - w3 * x - w4 * h
    b3, b4 = i - w5 * x - w6 * h, output - w7 * x - w8 * h
    return ScalarCell(*weights, b1, b2, b3, b4).step(x, h, c)


def siblings(data: Tweets, train: Ints, test: Ints) -> float:
    """The share of the test's rows that have another wording among those learnt from."""
    ids = np.asarray(data.ids)
    return float(np.isin(ids[test], ids[train]).mean())


def honest(data: Tweets, split: str, asked: Options) -> ClassificationReport:
    """How the project's own path does on the fifth for the test."""
    job = job_for(asked, "tweets")
    if split == "id":
        job = replace(job, config=replace(job.config, members=MEMBERS))
    else:
        job = replace(job, config=replace(job.config, epochs=asked.epochs or LEAKY_EPOCHS))
    train, test = cut(data, np.arange(len(data.y)), split, TEST, SPLIT_SEED)
    if split == "leaky":
        say(f"LEAKY: {siblings(data, train, test):.2%} of the test's rows have a re-worded sibling in training.")
        say("LEAKY: the scores say how well it knows them again, not how well it judges a new tweet.")
    with training_progress(lambda epoch: f"training loss {epoch.train_loss:.3f}") as on_step:
        return judged(data.texts, data.y, LABELS, train, test, job, on_step)


def main() -> None:
    """What was asked for."""
    asked = options(__doc__ or "", "sentences.tsv", split={"choices": ("id", "leaky"), "default": "id"})
    data = stand_in(asked.data) if asked.data.suffix in (".tsv", ".zip") else tweets(asked.data)
    with finished(asked) as result:
        if asked.mode == "parity":
            step = scalar_chain()
            say(f"scalar cell: c -0.82215 -> {step.kept:.5f} (forget gate {step.f:.5f}) -> {step.c:.5f}")
            say(f"             h -0.56174 -> {step.h:.5f} (output gate {step.o:.5f})")
            _, result["accuracy"] = parity(data, asked.seed, asked.epochs or EPOCHS)
        else:
            report = honest(data, asked.own["split"], asked)
            say(format_report(report))
            result.update(accuracy=report.accuracy, mcc=report.mcc)


if __name__ == "__main__":
    run(main)
