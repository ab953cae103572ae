"""Continuing texts: a model of each next token, trained on a text read as streams side by side.

T tokens of a text   S of a step   V different ones
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
READ = 3_500_000
"""How many tokens, one again and again, a model that continues texts reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTokenConfig(TrainConfig):
    """How a model that continues texts is made. The only place for these defaults."""

    hidden: int = 512
    dropout: float = 0.0
    epochs: int | None = None
    """Passes over the text; None: as many as make 3,500,000 tokens, 2 to 4."""
    learning_rate: float = 8e-3
    warmup: int = 50
    clip: float = 0.25
    batch: int = 16
    """Streams that the text is read in, side by side."""
    embedding: int = 64
    """E, width of a token; 0: one-hot."""
    steps: int = 64
    """S, tokens between two steps of the optimiser; the state goes on, its gradient ends."""

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
    """The card of a model that has not been trained yet to continue texts."""
    settings = config.settings()
    return NextTokenCard(name=name, arch="lstm", hyperparameters=settings, vocabulary=dict(vocabulary), tokens=tokens)


@dataclass(frozen=True, slots=True)
class PreparedTokens:
    """What the training of a model that continues texts begins with.

    Raises ValueError where a part is too short for the streams it is read in.
    """

    train: Ints
    """(T,)."""
    validation: Ints
    """(T',)."""
    card: NextTokenCard
    """Of the network before its training."""
    config: NextTokenConfig

    def __post_init__(self) -> None:
        streams = self.config.batch
        for part, text in (("training", self.train), ("validation", self.validation)):
            if len(text) <= streams:
                raise DataError(f"batch: the {part} text of {len(text)} tokens is too short for {streams} streams")

    def first(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """The card's inputs of so many rows from the beginning of what is trained on, with the state before any."""
        length = max(1, min(len(self.train) // count, self.config.steps))
        return token_inputs(self.train, self.card, (count, length))


def token_inputs(text: Ints, card: NextTokenCard, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
    """A model's named inputs (B,S) of a text's beginning, again and again where it is too short; the state is zero."""
    state = np.zeros((int(card.hyperparameters["layers"]), shape[0], int(card.hyperparameters["hidden"])), np.float32)
    return {"x": np.resize(text, shape), "h": state, "c": state}


def fit_next_token(prepared: PreparedTokens, on_step: OnStep | None = None) -> FittedModel[NextToken, NextTokenCard]:
    """Trains a model to continue a text, and keeps the weights that were best on what validates."""
    card, config = prepared.card, prepared.config
    config = replace(config, epochs=config.epochs or passes(READ, len(prepared.train), most=4))
    with repeatable(config) as device:
        model = build_next_token(card).to(device)
        history = optimise(model, _Streams(prepared, device), config, on_step)
    best = kept(history, config)
    metrics = {"validation_nats": best.validation_loss, "train_nats": best.train_loss, "best_epoch": best.number}
    return FittedModel(model.cpu().eval(), msgspec.structs.replace(card, metrics=metrics), history)


class _Streams:
    """A text cut into streams that are read side by side, some steps at a time; all but its first token are targets."""

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
