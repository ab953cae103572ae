"""Labelling texts: how rows are cut, what a classifier is trained on, and how it is judged.

N texts   S tokens of the longest   B batch   C labels
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from torch import Tensor

from model.card import ClassifierCard, Setting
from model.networks.protocol import Batch
from model.networks.text import Classifier, build_classifier
from model.training.loop import FittedModel, OnStep, TrainConfig, kept, optimise, passes, repeatable
from tidecast.errors import DataError, TrainingConfigError

Ints = npt.NDArray[np.int64]
SHOWN = 60_000
"""How many texts, one again and again, a classifier is shown."""
_BUCKET = 50
"""Batches that are sorted by length together."""
_EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyConfig(TrainConfig):
    """How a classifier is made. The only place for these defaults."""

    dropout: float = 0.5
    epochs: int | None = None
    """Passes over the texts; None: as many as make 60,000 of them, 2 to 8."""
    learning_rate: float = 2e-3
    keep: Literal["best", "last"] = "last"
    embedding: int = 128
    """E, width of a token; 0: one-hot."""
    subwords: bool = True
    """Whether a word is known by its groups of letters too."""
    both_ways: bool = True
    """Whether a second LSTM reads the text from its end."""
    select: Literal["last", "mean_max", "last_padded"] = "mean_max"
    """Which of the LSTM's outputs the head sees."""
    embedding_dropout: float = 0.6
    """Share of a token's places left out in training, the same for all tokens of a text."""
    token_dropout: float = 0.3
    """Share of the tokens made unknown in training."""
    smoothing: float = 0.1
    """How far from certain a label is taken to be in training."""
    members: int = 1
    """Networks whose logits are averaged; each begins elsewhere. Training and serving take as much longer."""
    balance: bool = False
    """Whether each label counts the same in the loss, however many texts it has."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        if self.embedding < 0:
            raise TrainingConfigError(f"embedding: {self.embedding} is negative")
        for field in ("token_dropout", "embedding_dropout", "smoothing"):
            if not 0 <= getattr(self, field) < 1:
                raise TrainingConfigError(f"{field}: {getattr(self, field)} is not in [0, 1)")
        if self.members < 1:
            raise TrainingConfigError(f"members: {self.members} is not positive")
        if not 0 <= self.seed < 2**32:
            raise TrainingConfigError(f"seed: {self.seed} is not in [0, 2^32), as texts are cut by it too")

    def settings(self) -> dict[str, Setting]:
        """The hyperparameters that `model.networks.text` takes."""
        names = ("embedding", "both_ways", "select", "embedding_dropout", "token_dropout", "members")
        return self.network() | {name: getattr(self, name) for name in names}


class TextData(Protocol):
    """Texts as training takes them."""

    @property
    def x(self) -> Ints:
        """(N,S) tokens, 0 padding on the right."""

    @property
    def lengths(self) -> Ints:
        """(N,), 1 to S."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows to train on, to choose by and to judge on; no group lies in two of them."""

    train: Ints
    validation: Ints
    test: Ints


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """How labels given compare with the true ones."""

    accuracy: float
    mcc: float
    """Matthews' correlation coefficient; 0 where one label is all there is."""
    f1: float
    """Of the second label if there are two, else the labels' mean."""
    majority: float
    """The accuracy of always saying the most frequent label."""
    confusion: Ints
    """(C,C): rows true, columns given."""


def partition(y: Ints, groups: Sequence[str] | None, share: float, seed: int) -> Parts:
    """Cuts rows at random into three; `share` of them validates and as many are for the test.

    Without groups each part has the labels in the same shares; with them all rows of a group stay together. Raises
    DataError where there is too little to cut.
    """
    rows = np.arange(len(y))
    smallest = int(np.bincount(y).min())
    if smallest < 3:
        raise DataError(f"labels: each needs at least 3 texts, and one has {smallest}")
    if groups is not None and len(set(groups)) < 3:
        raise DataError(f"groups: at least 3 are needed, one for each part, and there are {len(set(groups))}")
    rest, test = _cut(rows, y, groups, share, seed)
    train, validation = _cut(rest, y, groups, share / (1 - share), seed)
    return Parts(train, validation, test)


def _cut(rows: Ints, y: Ints, groups: Sequence[str] | None, share: float, seed: int) -> tuple[Ints, Ints]:
    if groups is None:
        rest, cut = train_test_split(
            rows, test_size=max(round(share * len(rows)), len(set(y.tolist()))), random_state=seed, stratify=y[rows]
        )
    else:
        split = GroupShuffleSplit(1, test_size=share, random_state=seed)
        rest, cut = (rows[part] for part in next(split.split(rows, groups=np.asarray(groups)[rows])))
    return np.sort(rest), np.sort(cut)


def classifier_card(
    labels: Sequence[str], vocabulary: Mapping[str, Any], tokens: int, config: ClassifyConfig, name: str
) -> ClassifierCard:
    """The card of a classifier that has not been trained yet."""
    return ClassifierCard(
        name=name,
        arch="lstm",
        hyperparameters=config.settings(),
        vocabulary=dict(vocabulary),
        tokens=tokens,
        labels=tuple(labels),
    )


@dataclass(frozen=True, slots=True)
class PreparedTexts:
    """What the training of a classifier begins with."""

    data: TextData
    y: Ints
    """(N,): places in the card's labels."""
    parts: Parts
    """Nothing need validate, if the last weights are kept."""
    card: ClassifierCard
    """Of the network before its training."""
    config: ClassifyConfig

    def first(self, count: int) -> dict[str, Ints]:
        """The card's inputs of the first texts trained on."""
        return text_inputs(self.data, self.parts.train[:count])


def text_inputs(data: TextData, rows: Ints) -> dict[str, Ints]:
    """A classifier's named inputs of the texts in these rows, as long as the longest of them."""
    return {"x": data.x[rows, : data.lengths[rows].max()], "lengths": data.lengths[rows]}


def fit_classifier(prepared: PreparedTexts, on_step: OnStep | None = None) -> FittedModel[Classifier, ClassifierCard]:
    """Trains a classifier on the texts to train on, and looks after each pass at how it does on those that validate.

    On the CPU the same seed and number of threads give the same weights. Raises ValueError.
    """
    card, parts, config = prepared.card, prepared.parts, prepared.config
    config = replace(config, epochs=config.epochs or passes(SHOWN, len(parts.train), most=8))
    with repeatable(config) as device:
        model = build_classifier(card, card.vocabulary.get("entries", ()) if config.subwords else ()).to(device)
        history = optimise(model, _Texts(prepared, device), config, on_step)
    best = kept(history, config)
    metrics = {"validation_loss": best.validation_loss, "train_loss": best.train_loss, "best_epoch": best.number}
    return FittedModel(model.fold().cpu().eval(), msgspec.structs.replace(card, metrics=metrics), history)


def _weights(y: Ints, labels: int, balance: bool) -> npt.NDArray[np.float32]:
    """How much a text of each label counts, 1 on average."""
    counts = np.bincount(y, minlength=labels)
    if not balance:
        return np.ones(labels, np.float32)
    return (len(y) / np.maximum(counts, 1) / np.count_nonzero(counts)).astype(np.float32)


class _Texts:
    """Batches of texts of like length, in a new order for each training pass; there each member has its own copy."""

    def __init__(self, prepared: PreparedTexts, device: torch.device) -> None:
        data, y, parts, labels = prepared.data, prepared.y, prepared.parts, len(prepared.card.labels)
        self._config, self._device = prepared.config, device
        self._x, self._lengths = torch.from_numpy(data.x), torch.from_numpy(data.lengths)
        self._y = torch.from_numpy(y.astype(np.float32) if labels == 2 else y)
        self._weight = torch.from_numpy(_weights(y[parts.train], labels, self._config.balance)[y])
        self._train, self._validation = torch.from_numpy(parts.train), torch.from_numpy(parts.validation)
        self.steps = -(-len(parts.train) // self._config.batch)

    def train(self) -> Iterator[Batch]:
        shuffled, size = self._train[torch.randperm(len(self._train))], self._config.batch
        parts = [
            part
            for bucket in torch.split(shuffled, _BUCKET * size)
            for part in torch.split(bucket[self._lengths[bucket].argsort()], size)
        ]
        order, members = torch.randperm(len(parts)).tolist(), self._config.members
        return (self._batch(parts[place].repeat(members), self._config.smoothing) for place in order)

    def validation(self) -> Iterator[Batch]:
        if not len(self._validation):
            return iter(())
        by_length = self._validation[self._lengths[self._validation].argsort()]
        return (self._batch(part) for part in torch.split(by_length, _EVALUATION_BATCH))

    def _batch(self, rows: Tensor, smoothing: float = 0.0) -> Batch:
        lengths, on = self._lengths[rows], self._device
        return Batch(
            task="classify",
            x=self._x[rows, : int(lengths.max())].to(on),
            y=self._y[rows].to(on),
            lengths=lengths.to(on),
            weight=self._weight[rows].to(on),
            smoothing=smoothing,
        )


@torch.no_grad()
def probabilities(model: Classifier, data: TextData, rows: Ints) -> npt.NDArray[np.float32]:
    """Each label's probability (N,C) for the texts in these rows; at least one."""
    parts = np.array_split(rows, -(-len(rows) // _EVALUATION_BATCH))
    given = ((torch.from_numpy(data.x[part]), torch.from_numpy(data.lengths[part])) for part in parts)
    return torch.cat([model(x[:, : int(lengths.max())], lengths) for x, lengths in given]).numpy()


def evaluate(given: npt.NDArray[np.float32], y: Ints) -> ClassificationReport:
    """Compares the likeliest labels of probabilities (N,C) with the true ones (N,)."""
    said, labels = given.argmax(1), np.arange(given.shape[1])
    averaged: dict[str, Any] = {"average": "binary"} if len(labels) == 2 else {"average": "macro", "labels": labels}
    return ClassificationReport(
        accuracy=float(accuracy_score(y, said)),
        mcc=float(matthews_corrcoef(y, said)) if len({*y.tolist(), *said.tolist()}) > 1 else 0.0,
        f1=float(f1_score(y, said, zero_division=0.0, **averaged)),
        majority=float(np.bincount(y).max() / len(y)),
        confusion=confusion_matrix(y, said, labels=labels),
    )
