"""The training loop of every task: epochs over batches, validation, early stopping and the weights that are kept."""

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
    """The settings that all tasks share: the network's size and its training; each task's config adds its own."""

    hidden: int = 64
    """H, width of the LSTM."""
    layers: int = 1
    """L, LSTM layers."""
    dropout: float = 0.1
    """Dropout probability between layers and before the head."""
    epochs: int | None = 30
    """Maximum number of epochs; the learning rate decays to zero over them."""
    keep: Literal["best", "last"] = "best"
    """Which weights are kept: those of the epoch with the best validation loss, or the last, without early stopping."""
    seconds: float | None = None
    """Approximate time budget; epochs and learning rate schedule are shortened to fit it."""
    patience: int = 5
    """Epochs without a better validation loss before early stopping, if keep is best."""
    batch: int = 64
    """Batch size."""
    learning_rate: float = 3e-3
    """AdamW's initial learning rate."""
    warmup: int = 0
    """Steps of linear learning rate warmup."""
    clip: float = 1.0
    """Maximum gradient norm."""
    seed: int = 0
    """Seed of initial weights, shuffling and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto means a GPU if available."""
    bf16: bool = False
    """Whether the forward pass uses bfloat16; on a GPU the LSTM is excepted and uses TF32."""
    threads: int = 1
    """CPU threads. One is the fastest for narrow networks, where synchronisation costs more than it gains."""

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
        """The hyperparameters that the card records, from which the same network can be built."""
        return {"hidden": self.hidden, "layers": self.layers, "dropout": self.dropout}


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The result of one epoch; losses are `model.networks.protocol.loss` per target."""

    number: int
    """From 1."""
    train_loss: float
    validation_loss: float
    """The training loss if there is no validation data."""
    seconds: float
    member: str = ""
    """Which network of an ensemble; empty if there is one."""


@dataclass(frozen=True, slots=True)
class FittedModel(Generic[Network, Described]):
    """A trained model on the CPU with its card and training history; losses are those of its task."""

    model: Network
    card: Described
    history: list[Epoch]


class BatchSource(Protocol):
    """Supplies the batches, on the training device."""

    steps: int
    """Batches per epoch."""

    def train(self) -> Iterator[Batch]:
        """One epoch over the training data, reshuffled where the order does not matter."""

    def validation(self) -> Iterator[Batch]:
        """One pass over the validation data."""


OnStep = Callable[[int, int, list[Epoch]], object]
"""Called after each step with the steps done, the maximum number of steps, and the epochs so far."""


@contextmanager
def repeatable(config: TrainConfig) -> Iterator[torch.device]:
    """A context with the config's seed and threads set; yields its device.

    Raises ConfigError if the GPU is not available or the CPU does not support bfloat16.
    """
    device, threads = choose_device(config.device), torch.get_num_threads()
    if config.bf16 and device.type == "cpu" and not supports_bf16():
        raise ConfigError("bf16: this processor does not support bfloat16")
    distributed.init_process_group(device)
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(config.seed)
            yield device
    finally:
        torch.set_num_threads(threads)


def supports_bf16() -> bool:
    """Whether LSTMs can be computed in bfloat16 on this machine's processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_device(name: str) -> torch.device:
    """The device for auto, cpu or cuda. Raises ConfigError if the GPU is not available."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device: cuda is not available to this torch")
    return distributed.local_device("cuda" if available and name != "cpu" else "cpu")


def passes(wanted: int, rows: int, most: int) -> int:
    """The number of epochs, 2 to `most`, after which about `wanted` samples of so many rows have been seen."""
    return min(max(round(wanted / rows), 2), most)


def kept(history: list[Epoch], config: TrainConfig) -> Epoch:
    """The epoch whose weights were kept."""
    return history[-1] if config.keep == "last" else min(history, key=lambda epoch: epoch.validation_loss)


def optimise(model: Model, source: BatchSource, config: TrainConfig, on_step: OnStep | None = None) -> list[Epoch]:
    """Trains a network, leaves it with its best or last weights, as configured, and returns the history.

    Raises ConfigError if the loss is no longer finite.
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
            started = time.perf_counter()
            train, validation = self._pass(), self._validate()
            if not math.isfinite(error := train if validation is None else validation):
                raise ConfigError(
                    f"learning_rate: the error is {error} after epoch {number}; try a lower learning rate"
                )
            seconds = distributed.all_reduce_mean(time.perf_counter() - started, self.device)
            self.history.append(Epoch(number=number, train_loss=train, validation_loss=error, seconds=seconds))
            self._keep_to_time(seconds, number)
            self.on_step(self.done, self.total, self.history)
            if error <= min(epoch.validation_loss for epoch in self.history):
                best, weights = number, copy.deepcopy(self.model.state_dict())
            stalled = self.config.keep == "best" and number - best >= self.config.patience
            if stalled or number >= self.epochs:
                break
        if self.config.keep == "best":
            self.model.load_state_dict(weights)
        return self.history

    def _keep_to_time(self, epoch: float, done: int) -> None:
        """Reduce the planned epochs if they would exceed the time budget."""
        if self.config.seconds is not None:
            left = self.config.seconds - sum(passed.seconds for passed in self.history)
            self.epochs = min(self.epochs, done + max(0, int(left / epoch)))
            self.total = self.epochs * self.source.steps

    def _rate(self, step: int) -> float:
        """The learning rate factor: linear warmup, then cosine decay to zero."""
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
            if self.done % self.source.steps:  # the last step of an epoch is reported after validation
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
        """The mean loss per target over all batches of all ranks."""
        parts = [torch.stack(part).double().sum() for part in zip(*sums, strict=True)]
        losses, counts = distributed.all_reduce_sum(torch.stack(parts))
        return float(losses / counts)
