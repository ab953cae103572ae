"""Text classification: data splits, training and evaluation.

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
TEXTS_SEEN = 60_000
"""The total number of texts to train on, over all epochs."""
_BUCKET = 50
"""Batches per bucket; texts are sorted by length within a bucket."""
_EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyConfig(TrainConfig):
    """The training settings of a classifier. The only place for these defaults."""

    dropout: float = 0.5
    epochs: int | None = None
    """Epochs; None: as many as make 60,000 texts, 2 to 8."""
    learning_rate: float = 2e-3
    keep: Literal["best", "last"] = "last"
    embedding: int = 128
    """E, embedding width; 0: one-hot."""
    subwords: bool = True
    """Whether words are embedded by their character n-grams too."""
    both_ways: bool = True
    """Whether the LSTM is bidirectional."""
    select: Literal["last", "mean_max", "last_padded"] = "mean_max"
    """Which of the LSTM's outputs the head sees."""
    embedding_dropout: float = 0.6
    """Dropout probability of embedding dimensions, with one mask for all tokens of a text."""
    token_dropout: float = 0.3
    """Probability that a token is replaced by the unknown token in training."""
    smoothing: float = 0.1
    """Label smoothing."""
    members: int = 1
    """Ensemble size: networks, differently initialised, whose logits are averaged. Training and serving time grow with
    it."""
    balance: bool = False
    """Whether the loss weights labels by their inverse frequency."""

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
            raise TrainingConfigError(f"seed: {self.seed} is not in [0, 2^32), which the data split requires")

    def settings(self) -> dict[str, Setting]:
        """The hyperparameters that `model.networks.text` takes."""
        names = ("embedding", "both_ways", "select", "embedding_dropout", "token_dropout", "members")
        return self.network() | {name: getattr(self, name) for name in names}


class TextData(Protocol):
    """Tokenised texts for training."""

    @property
    def x(self) -> Ints:
        """(N,S) tokens, 0 padding on the right."""

    @property
    def lengths(self) -> Ints:
        """(N,), 1 to S."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows of the training, validation and test parts; no group is in two of them."""

    train: Ints
    validation: Ints
    test: Ints


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Classification metrics of predicted against true labels."""

    accuracy: float
    mcc: float
    """Matthews correlation coefficient; 0 if only one label occurs."""
    f1: float
    """F1 of the second label if there are two, else macro F1."""
    majority: float
    """The accuracy of always predicting the most frequent label."""
    confusion: Ints
    """(C,C): true labels in rows, predicted labels in columns."""


def partition(y: Ints, groups: Sequence[str] | None, share: float, seed: int) -> Parts:
    """Splits rows at random into training, validation and test; `share` each for validation and test.

    Without groups the split is stratified by label; with groups all rows of a group stay together. Raises DataError
    for too few texts or groups.
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
    """The data, card and settings that training a classifier needs."""

    data: TextData
    y: Ints
    """(N,): indices of the card's labels."""
    parts: Parts
    """Validation may be empty if the last weights are kept."""
    card: ClassifierCard
    """The card of the untrained network."""
    config: ClassifyConfig

    def first(self, count: int) -> dict[str, Ints]:
        """The card's inputs for the first training texts."""
        return text_inputs(self.data, self.parts.train[:count])


def text_inputs(data: TextData, rows: Ints) -> dict[str, Ints]:
    """A classifier's named inputs for the texts in these rows, padded to the longest of them."""
    return {"x": data.x[rows, : data.lengths[rows].max()], "lengths": data.lengths[rows]}


def fit_classifier(prepared: PreparedTexts, on_step: OnStep | None = None) -> FittedModel[Classifier, ClassifierCard]:
    """Trains a classifier, with validation after each epoch.

    On the CPU the same seed and number of threads give the same weights. Raises ConfigError if training diverges.
    """
    card, parts, config = prepared.card, prepared.parts, prepared.config
    config = replace(config, epochs=config.epochs or passes(TEXTS_SEEN, len(parts.train), most=8))
    with repeatable(config) as device:
        model = build_classifier(card, card.vocabulary.get("entries", ()) if config.subwords else ()).to(device)
        history = optimise(model, _Texts(prepared, device), config, on_step)
    best = kept(history, config)
    metrics = {"validation_loss": best.validation_loss, "train_loss": best.train_loss, "best_epoch": best.number}
    return FittedModel(model.fold().cpu().eval(), msgspec.structs.replace(card, metrics=metrics), history)


def _weights(y: Ints, labels: int, balance: bool) -> npt.NDArray[np.float32]:
    """The loss weight of each label, 1 on average over the texts."""
    counts = np.bincount(y, minlength=labels)
    if not balance:
        return np.ones(labels, np.float32)
    return (len(y) / np.maximum(counts, 1) / np.count_nonzero(counts)).astype(np.float32)


class _Texts:
    """Batches of texts of similar length, reshuffled each epoch; in training each member gets its own copy."""

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
    inputs = ((torch.from_numpy(data.x[part]), torch.from_numpy(data.lengths[part])) for part in parts)
    return torch.cat([model(x[:, : int(lengths.max())], lengths) for x, lengths in inputs]).numpy()


def evaluate(probability: npt.NDArray[np.float32], y: Ints) -> ClassificationReport:
    """The metrics of the most probable labels, from probabilities (N,C), against the true ones (N,)."""
    predicted, labels = probability.argmax(1), np.arange(probability.shape[1])
    averaged: dict[str, Any] = {"average": "binary"} if len(labels) == 2 else {"average": "macro", "labels": labels}
    return ClassificationReport(
        accuracy=float(accuracy_score(y, predicted)),
        mcc=float(matthews_corrcoef(y, predicted)) if len({*y.tolist(), *predicted.tolist()}) > 1 else 0.0,
        f1=float(f1_score(y, predicted, zero_division=0.0, **averaged)),
        majority=float(np.bincount(y).max() / len(y)),
        confusion=confusion_matrix(y, predicted, labels=labels),
    )
