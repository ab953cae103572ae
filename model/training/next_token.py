"""Language models: next-token prediction, trained on a text split into parallel streams.

T tokens of a text   S tokens of a step   V vocabulary size
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.card import NextTokenCard, Setting
from model.networks.protocol import IGNORED, Batch
from model.networks.text import NextToken, build_next_token
from model.training.loop import FittedModel, OnStep, TrainConfig, kept, optimise, passes, repeatable
from tidecast.errors import DataError, TrainingConfigError

Ints = npt.NDArray[np.int64]
TOKENS_SEEN = 3_500_000
"""The total number of tokens to train on, over all epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTokenConfig(TrainConfig):
    """The training settings of a language model. The only place for these defaults."""

    hidden: int = 512
    dropout: float = 0.0
    epochs: int | None = None
    """Epochs; None: as many as make 3,500,000 tokens, 2 to 4."""
    learning_rate: float = 8e-3
    warmup: int = 50
    clip: float = 0.25
    batch: int = 16
    """Batch size: the parallel streams that the text is split into."""
    embedding: int = 64
    """E, embedding width; 0: one-hot."""
    steps: int = 64
    """S, tokens per optimiser step (truncated backpropagation through time)."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        if self.steps < 1:
            raise TrainingConfigError(f"steps: {self.steps} is not positive")
        if self.embedding < 0:
            raise TrainingConfigError(f"embedding: {self.embedding} is negative")

    def settings(self) -> dict[str, Setting]:
        """The hyperparameters that `model.networks.text` takes."""
        return self.network() | {"embedding": self.embedding}


def next_token_card(vocabulary: Mapping[str, Any], tokens: int, config: NextTokenConfig, name: str) -> NextTokenCard:
    """The card of a language model that has not been trained yet."""
    settings = config.settings()
    return NextTokenCard(name=name, arch="lstm", hyperparameters=settings, vocabulary=dict(vocabulary), tokens=tokens)


@dataclass(frozen=True, slots=True)
class PreparedTokens:
    """The data, card and settings that training a language model needs.

    Raises DataError if a part is too short for the number of streams.
    """

    train: Ints
    """(T,)."""
    validation: Ints
    """(T',)."""
    card: NextTokenCard
    """The card of the untrained network."""
    config: NextTokenConfig

    def __post_init__(self) -> None:
        streams = self.config.batch
        for part, text in (("training", self.train), ("validation", self.validation)):
            if len(text) <= streams:
                raise DataError(f"batch: the {part} text of {len(text)} tokens is too short for {streams} streams")

    def first(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """The card's inputs for `count` rows from the start of the training text, with the initial state."""
        length = max(1, min(len(self.train) // count, self.config.steps))
        return token_inputs(self.train, self.card, (count, length))


def token_inputs(text: Ints, card: NextTokenCard, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
    """A model's named inputs (B,S) from the start of a text, repeated if too short; the state is zero."""
    state = np.zeros((int(card.hyperparameters["layers"]), shape[0], int(card.hyperparameters["hidden"])), np.float32)
    return {"x": np.resize(text, shape), "h": state, "c": state}


def fit_next_token(prepared: PreparedTokens, on_step: OnStep | None = None) -> FittedModel[NextToken, NextTokenCard]:
    """Trains a language model and keeps the weights with the best validation loss."""
    card, config = prepared.card, prepared.config
    config = replace(config, epochs=config.epochs or passes(TOKENS_SEEN, len(prepared.train), most=4))
    with repeatable(config) as device:
        model = build_next_token(card).to(device)
        history = optimise(model, _Streams(prepared, device), config, on_step)
    best = kept(history, config)
    metrics = {"validation_nats": best.validation_loss, "train_nats": best.train_loss, "best_epoch": best.number}
    return FittedModel(model.cpu().eval(), msgspec.structs.replace(card, metrics=metrics), history)


class _Streams:
    """A text split into parallel streams, read S tokens at a time; all tokens but the first are targets."""

    def __init__(self, prepared: PreparedTokens, device: torch.device) -> None:
        both, self._length = (prepared.train, prepared.validation), prepared.config.steps
        self._train, self._validation = (_side_by_side(text, prepared.config.batch, device) for text in both)
        self.steps = -(-self._train[0].shape[1] // self._length)

    def train(self) -> Iterator[Batch]:
        return self._chunks(*self._train)

    def validation(self) -> Iterator[Batch]:
        return self._chunks(*self._validation)

    def _chunks(self, x: Tensor, y: Tensor) -> Iterator[Batch]:
        parts = zip(torch.split(x, self._length, 1), torch.split(y, self._length, 1), strict=True)
        return (Batch(task="next_token", x=part, y=after, carried=at > 0) for at, (part, after) in enumerate(parts))


def _side_by_side(text: Ints, streams: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x and y, (streams, T/streams): y is what follows x."""
    length = -(-(len(text) - 1) // streams)
    missing = length * streams - (len(text) - 1)
    x = np.pad(text[:-1], (0, missing)).reshape(streams, length)
    y = np.pad(text[1:], (0, missing), constant_values=IGNORED).reshape(streams, length)
    return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
