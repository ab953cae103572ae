"""Training: windows as views, a squared error in each series' own units, early stopping on what came later in time."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.backtest import Rows, Split, naive_scores, series_scale, split
from model.lstm import ARCHITECTURES, LOCATIONS, Forecaster, build, default_segment
from model.shapes import WindowData, Windows, squared_error
from model.spec import Card, InputSpec, OutputSpec, Setting

FLOOR = 0.01
"""The least scale of a window, in standard deviations of the calmest series."""
_EVALUATION_BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a model is made: its network, then its training. The only place for these defaults."""

    arch: Literal["lstm", "segment"] = "segment"
    """The network."""
    hidden: int = 64
    """H, width of the LSTM."""
    layers: int = 1
    """L, LSTM layers."""
    dropout: float = 0.1
    """Share of the last state's entries, and of those between layers, left out in training."""
    segment: int | None = None
    """Steps in a segment, a divisor of seq_len and horizon; None: the longest sensible one. Only for arch segment."""
    location: Literal["last", "mean"] = "last"
    """What is taken off a window before the network and put back after it."""
    epochs: int = 30
    """Passes over the training windows, at most; the learning rate falls to zero over them."""
    patience: int = 5
    """Epochs without a better validation error after which training ends."""
    batch: int = 64
    """Windows in a step of the optimiser."""
    learning_rate: float = 3e-3
    """AdamW's, at the start."""
    clip: float = 1.0
    """The greatest norm of a gradient."""
    validation: float = 1 / 7
    """The share of the data, last in time, that validates."""
    seed: int = 0
    """Of the weights, the order of windows and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    threads: int = 1
    """CPU threads. One is the quickest for networks this narrow: more wait for each other, all the longer on a busy
    machine."""

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"arch: {self.arch!r} is none of {ARCHITECTURES}")
        if self.location not in LOCATIONS:
            raise ValueError(f"location: {self.location!r} is none of {LOCATIONS}")
        for field in ("hidden", "layers", "epochs", "patience", "batch", "learning_rate", "clip", "threads"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field}: {getattr(self, field)} is not positive")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: {self.dropout} is not in [0, 1)")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation: {self.validation} is not in (0, 1)")

    def settings(self, inputs: InputSpec, outputs: OutputSpec) -> dict[str, Setting]:
        """The hyperparameters that `model.lstm.build` takes."""
        settings: dict[str, Setting] = {
            "hidden": self.hidden,
            "layers": self.layers,
            "dropout": self.dropout,
            "location": self.location,
        }
        if self.arch == "segment":
            settings["segment"] = self.segment or default_segment(inputs.seq_len, outputs.horizon)
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one pass brought; errors are mean squared errors in z-scores of each series' training part."""

    number: int
    """From 1."""
    train_loss: float
    validation_mse: float
    naive_mse: float
    """The best seasonal naive's, or without seasons the last value's, on the same validation windows."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model, on the CPU, and how it came about."""

    model: Forecaster
    card: Card
    history: list[Epoch]
    split: Split


def fit(
    data: WindowData,
    inputs: InputSpec,
    outputs: OutputSpec,
    config: TrainConfig,
    name: str,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fitted:
    """Trains one model on the windows of all series, and keeps the weights that were best on validation.

    On the CPU the same seed and number of threads give the same weights. Raises ValueError naming the field that is
    wrong, or saying how many events are needed where there are too few windows.
    """
    device = choose_device(config.device)
    card = Card(
        name=name,
        input=inputs,
        output=outputs,
        arch=config.arch,
        hyperparameters=config.settings(inputs, outputs),
        trained_until=0,
    )
    parts = split(data, outputs.horizon, config.validation)
    scale = series_scale(data, card.target_columns, parts.cut)
    naive = naive_scores(data, parts.validation, outputs.horizon, card.target_columns, inputs.freq, scale)
    with torch.random.fork_rng(), _threads(config.threads):
        torch.manual_seed(config.seed)
        model = build(inputs, outputs, card.arch, card.hyperparameters, _floor(data, parts.cut)).to(device)
        windows = Windows(data, outputs.horizon, card.target_columns, scale, device)
        history = _Trainer(model, windows, parts, config, _to_beat(naive)).run(on_epoch)
    best = min(history, key=lambda epoch: epoch.validation_mse)
    metrics = {"validation_mse": best.validation_mse, "train_loss": best.train_loss, "best_epoch": best.number}
    metrics |= {f"naive_{season}_mse": score for season, score in naive.items()}
    trained_until = int(data.ts[np.concatenate([parts.train, parts.validation]) + outputs.horizon].max())
    seen = {"trained_until": trained_until, "ranges": _ranges(data, inputs.features), "metrics": metrics}
    return Fitted(model.cpu().eval(), msgspec.structs.replace(card, **seen), history, parts)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> torch.device:
    """The device for auto, cpu or cuda. Raises ValueError for a GPU that is not there."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("device: cuda is not available to this torch")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


@torch.no_grad()
def forecast(model: Forecaster, data: WindowData, ends: Rows) -> npt.NDArray[np.float32]:
    """The model's forecasts (N,K,O), raw units, for the windows that end in these rows; at least one."""
    back = np.arange(1 - data.seq_len, 1)
    parts = np.array_split(ends, -(-len(ends) // _EVALUATION_BATCH))
    return torch.cat([model(torch.from_numpy(data.values[part[:, None] + back])) for part in parts]).numpy()


class _Trainer:
    def __init__(self, model: Forecaster, windows: Windows, parts: Split, config: TrainConfig, naive: float) -> None:
        self.model, self.windows, self.config, self.naive = model, windows, config, naive
        self.device = next(model.parameters()).device
        self.train = torch.from_numpy(parts.train)
        self.validation = torch.from_numpy(parts.validation)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True)
        steps = config.epochs * -(-len(self.train) // config.batch)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, steps)

    def run(self, on_epoch: Callable[[Epoch], None] | None) -> list[Epoch]:
        history: list[Epoch] = []
        best, weights = 0, copy.deepcopy(self.model.state_dict())
        for number in range(1, self.config.epochs + 1):
            begun = time.perf_counter()
            train_loss, validation_mse = self._pass(), self._validate()
            seconds = time.perf_counter() - begun
            if not math.isfinite(validation_mse):
                raise ValueError(f"learning_rate: the error is {validation_mse} after epoch {number}; try a lower one")
            history.append(
                Epoch(
                    number=number,
                    train_loss=train_loss,
                    validation_mse=validation_mse,
                    naive_mse=self.naive,
                    seconds=seconds,
                )
            )
            if on_epoch:
                on_epoch(history[-1])
            if validation_mse <= min(epoch.validation_mse for epoch in history):
                best, weights = number, copy.deepcopy(self.model.state_dict())
            if number - best >= self.config.patience:
                break
        self.model.load_state_dict(weights)
        return history

    def _pass(self) -> float:
        self.model.train()
        total, seen = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for ends in torch.split(self.train[torch.randperm(len(self.train))], self.config.batch):
            loss, observed = self._loss(ends)
            self.optimiser.zero_grad()
            (loss / observed.clamp(min=1)).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimiser.step()
            self.schedule.step()
            total, seen = total + loss.detach(), seen + observed
        return float(total / seen)

    @torch.no_grad()
    def _validate(self) -> float:
        self.model.eval()
        losses = [self._loss(ends) for ends in torch.split(self.validation, _EVALUATION_BATCH)]
        return float(sum(loss.double() for loss, _ in losses) / sum(observed for _, observed in losses))

    def _loss(self, ends: Tensor) -> tuple[Tensor, Tensor]:
        batch = self.windows.batch(ends.to(self.device))
        return squared_error(self.model(batch.x), batch), batch.observed.sum()


def _to_beat(naive: dict[str, float]) -> float:
    return min((score for name, score in naive.items() if name != "last"), default=naive["last"])


def _floor(data: WindowData, before: int) -> Tensor:
    scale = series_scale(data, range(data.values.shape[1]), before)
    return torch.from_numpy(FLOOR * scale.min(axis=0)).float()


def _ranges(data: WindowData, features: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    pairs = zip(features, data.values.min(axis=0), data.values.max(axis=0), strict=True)
    return {name: (float(least), float(greatest)) for name, least, greatest in pairs}
