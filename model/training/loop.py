"""Training, whatever the task: passes over batches, validation after each, and which weights are kept."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from model.card import AnyCard, Setting
from model.networks.protocol import Batch, Model, State, loss
from model.training import distributed
from tidecast.errors import ConfigError, TrainingConfigError

Network = TypeVar("Network", bound=nn.Module)
Described = TypeVar("Described", bound=AnyCard)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How any network is trained, and how wide it is; what is a task's own is added by its own config."""

    hidden: int = 64
    """H, width of the LSTM."""
    layers: int = 1
    """L, LSTM layers."""
    dropout: float = 0.1
    """Share of the values left out in training, between layers and before the head."""
    epochs: int | None = 30
    """Passes over the training data, at most; the learning rate falls to zero over them."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the best one's on validation, or the last one's, all epochs long."""
    seconds: float | None = None
    """About how long training may take; the epochs, and with them the fall of the learning rate, become fewer."""
    patience: int = 5
    """Epochs without a better validation error after which training ends, where the best is kept."""
    batch: int = 64
    """Rows in a step of the optimiser."""
    learning_rate: float = 3e-3
    """AdamW's, at the start."""
    warmup: int = 0
    """Steps over which the learning rate rises to it."""
    clip: float = 1.0
    """The greatest norm of a gradient."""
    seed: int = 0
    """Of the weights, the order of rows and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    bf16: bool = False
    """Whether the forward pass multiplies in bfloat16; on a GPU all but the LSTM, which has TF32 there."""
    threads: int = 1
    """CPU threads. One is the quickest for narrow networks: more wait for each other, all the longer on a busy
    machine."""

    def __post_init__(self) -> None:
        for field in ("hidden", "layers", "epochs", "patience", "batch", "learning_rate", "clip", "threads", "seconds"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise TrainingConfigError(f"{field}: {value} is not positive")
        if not 0 <= self.dropout < 1:
            raise TrainingConfigError(f"dropout: {self.dropout} is not in [0, 1)")
        if not -(2**62) < self.seed < 2**62:
            raise TrainingConfigError(f"seed: {self.seed} is not between -2^62 and 2^62")

    def network(self) -> dict[str, Setting]:
        """What a card keeps to make the same network again."""
        return {"hidden": self.hidden, "layers": self.layers, "dropout": self.dropout}


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one pass brought; losses are those of `model.networks.protocol.loss`, a counted target."""

    number: int
    """From 1."""
    train_loss: float
    validation_loss: float
    """On the data held out; the training's own where there is none."""
    seconds: float


@dataclass(frozen=True, slots=True)
class FittedModel(Generic[Network, Described]):
    """A trained model, on the CPU, and how it came about; losses are those of its task."""

    model: Network
    card: Described
    history: list[Epoch]


class BatchSource(Protocol):
    """Where batches come from, on the device they are needed on."""

    steps: int
    """Batches in a training pass."""

    def train(self) -> Iterator[Batch]:
        """One pass over the training data, in a new order where order is free."""

    def validation(self) -> Iterator[Batch]:
        """One pass over the validation data."""


OnStep = Callable[[int, int, list[Epoch]], object]
"""Called after each step with the steps done, how many there are at most, and the epochs so far."""


@contextmanager
def repeatable(config: TrainConfig) -> Iterator[torch.device]:
    """The config's seed, threads and device, for as long as this lasts.

    Raises ConfigError for a GPU that is not there, and for a processor that is asked for bfloat16 and does not know it.
    """
    device, threads = choose_device(config.device), torch.get_num_threads()
    if config.bf16 and device.type == "cpu" and not knows_bf16():
        raise ConfigError("bf16: this processor does not know bfloat16")
    distributed.init_process_group(device)
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(config.seed)
            yield device
    finally:
        torch.set_num_threads(threads)


def knows_bf16() -> bool:
    """Whether LSTMs can be computed in bfloat16 on this machine's processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_device(name: str) -> torch.device:
    """The device for auto, cpu or cuda. Raises ConfigError for a GPU that is not there."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("device: cuda is not available to this torch")
    return distributed.local_device("cuda" if there and name != "cpu" else "cpu")


def passes(wanted: int, rows: int, most: int) -> int:
    """How many epochs show about as many rows as wanted, one again and again: 2 to `most`."""
    return min(max(round(wanted / rows), 2), most)


def kept(history: list[Epoch], config: TrainConfig) -> Epoch:
    """The epoch whose weights were kept."""
    return history[-1] if config.keep == "last" else min(history, key=lambda epoch: epoch.validation_loss)


def optimise(model: Model, source: BatchSource, config: TrainConfig, on_step: OnStep | None = None) -> list[Epoch]:
    """Trains a network, keeps its best weights on validation or its last, as the config says, and tells how it went.

    Raises ConfigError where the error stops being a number.
    """
    return _Trainer(model, source, config, on_step or (lambda *_: None)).run()


class _Trainer:
    def __init__(self, model: Model, source: BatchSource, config: TrainConfig, on_step: OnStep) -> None:
        assert isinstance(model, nn.Module)
        self.model, self.source, self.config, self.on_step = model, source, config, on_step
        self.device = next(model.parameters()).device
        distributed.broadcast_weights(model)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True)
        assert config.epochs is not None
        self.epochs, self.total, self.done = config.epochs, config.epochs * source.steps, 0
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)
        self.history: list[Epoch] = []

    def run(self) -> list[Epoch]:
        best, weights = 0, {}
        for number in count(1):
            begun = time.perf_counter()
            train, validation = self._pass(), self._validate()
            if not math.isfinite(error := train if validation is None else validation):
                raise ConfigError(f"learning_rate: the error is {error} after epoch {number}; try a lower one")
            seconds = distributed.all_reduce_mean(time.perf_counter() - begun, self.device)
            self.history.append(Epoch(number=number, train_loss=train, validation_loss=error, seconds=seconds))
            self._keep_to_time(seconds, number)
            self.on_step(self.done, self.total, self.history)
            if error <= min(epoch.validation_loss for epoch in self.history):
                best, weights = number, copy.deepcopy(self.model.state_dict())
            waited = self.config.keep == "best" and number - best >= self.config.patience
            if waited or number >= self.epochs:
                break
        if self.config.keep == "best":
            self.model.load_state_dict(weights)
        return self.history

    def _keep_to_time(self, epoch: float, done: int) -> None:
        """Plan fewer epochs, if as many as planned would take too long."""
        if self.config.seconds is not None:
            left = self.config.seconds - sum(passed.seconds for passed in self.history)
            self.epochs = min(self.epochs, done + max(0, int(left / epoch)))
            self.total = self.epochs * self.source.steps

    def _rate(self, step: int) -> float:
        """The share of the learning rate: up to it, then down to zero on half a cosine."""
        rise = min(1.0, (step + 1) / (self.config.warmup + 1))
        return rise * (1 + math.cos(math.pi * step / self.total)) / 2

    def _pass(self) -> float:
        self.model.train()
        sums: list[tuple[Tensor, Tensor]] = []
        state: State | None = None
        for batch in self.source.train():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
                output, state = self.model.outputs(batch, state)
            total, counted = loss(output.float(), batch)
            self.optimiser.zero_grad()
            (total / distributed.all_reduce_sum(counted.clone()).clamp(min=1)).backward()  # type: ignore[no-untyped-call]
            distributed.all_reduce_gradients(self.model.parameters())
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimiser.step()
            self.schedule.step()
            sums.append((total.detach(), counted))
            self.done += 1
            if self.done % self.source.steps:  # the last step of an epoch is told with its validation
                self.on_step(self.done, self.total, self.history)
        return self._mean(sums)

    @torch.no_grad()
    def _validate(self) -> float | None:
        self.model.eval()
        sums: list[tuple[Tensor, Tensor]] = []
        state: State | None = None
        for batch in self.source.validation():
            output, state = self.model.outputs(batch, state)
            sums.append(loss(output, batch))
        return self._mean(sums) if sums else None

    def _mean(self, sums: list[tuple[Tensor, Tensor]]) -> float:
        """Of all batches, everybody's."""
        parts = [torch.stack(part).double().sum() for part in zip(*sums, strict=True)]
        losses, counts = distributed.all_reduce_sum(torch.stack(parts))
        return float(losses / counts)
