"""Forecasting: one LSTM over the windows of all series, judged in time on what came later."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model import team
from model.backtest import Cuts, Split, last_share, naive_scores, series_scale, split
from model.blend import recipe, weigh
from model.lstm import ARCHITECTURES, LOCATIONS, Forecaster, Member, default_segment, member
from model.naive import Rows, seasonal_lags
from model.scores import Yardstick
from model.series import WindowData, Windows
from model.shapes import Batch
from model.spec import Card, InputSpec, OutputSpec, Setting
from model.train import Epoch, OnStep, TrainConfig, kept, optimise, repeatable

BLEND = "blend"
"""The arch of a model that is the mean of several networks."""
FLOOR = 0.01
"""The least scale of a window, in standard deviations of the calmest series."""
_EVALUATION_BATCH = 1024
EPOCHS, _STEPS = 30, 5_000
_EVALUATED = 4_000_000
"""Most steps that validation forecasts, over all windows: of more windows it is an even sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastConfig(TrainConfig):
    """How a forecasting model is made. The only place for these defaults."""

    dropout: float = 0.3
    epochs: int | None = None
    """Passes over the windows, at most; None: 30, and where a pass is short as many as make 5,000 steps, with a
    patience in proportion."""
    arch: Literal["blend", "lstm", "segment"] = "blend"
    """The network; a blend is the mean of several, each with its own location and skip, weighed on
    validation."""
    segment: int | None = None
    """Steps in a segment; None: the longest sensible one that divides seq_len and horizon. Only for arch segment."""
    location: Literal["last", "mean", "season"] = "last"
    """What is taken off a window before the network and put back after it; season: each step's value a season before,
    by the grid's shortest season."""
    epoch_windows: int = 16_384
    """Windows in an epoch and in its validation, at most: of more it is a sample."""
    validation: float = 1 / 7
    """The share of the data, last in time, that validates."""

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        if self.arch not in (BLEND, *ARCHITECTURES):
            raise ValueError(f"arch: {self.arch!r} is none of {(BLEND, *ARCHITECTURES)}")
        if not self.epoch_windows > 0:
            raise ValueError(f"epoch_windows: {self.epoch_windows} is not positive")
        if self.location not in LOCATIONS:
            raise ValueError(f"location: {self.location!r} is none of {LOCATIONS}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation: {self.validation} is not in (0, 1)")

    def settings(self, inputs: InputSpec, outputs: OutputSpec) -> dict[str, Setting]:
        """The hyperparameters that `model.lstm.member` takes, of the one network that is no blend."""
        settings = self.network() | {"location": self.location}
        lag = min(seasonal_lags(inputs.freq).values(), default=0) if self.location == "season" else 0
        if lag:
            settings["lag"] = lag
        if self.arch == "segment":
            settings["segment"] = self.segment or default_segment(inputs.seq_len - lag, outputs.horizon)
        return settings


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model, on the CPU, and how it came about; losses are mse in z-scores of each series' training part."""

    model: Forecaster
    card: Card
    history: list[Epoch]
    split: Split

    @property
    def naive_mse(self) -> float:
        """The best seasonal naive's error, or without seasons the last value's, on the same validation windows."""
        scores = {name: score for name, score in self.card.metrics.items() if name.startswith("naive_")}
        return min(
            (score for name, score in scores.items() if name != "naive_last_mse"), default=scores["naive_last_mse"]
        )


def forecast_card(inputs: InputSpec, outputs: OutputSpec, config: ForecastConfig, name: str) -> Card:
    """The card of a model that has not been trained yet."""
    if config.arch == BLEND:
        settings: dict[str, Setting] = {}
        members = recipe(inputs, outputs, config.network())
    else:
        settings, members = config.settings(inputs, outputs), ()
    return Card(
        name=name,
        input=inputs,
        output=outputs,
        arch=config.arch,
        hyperparameters=settings,
        members=members,
        trained_until=0,
    )


def fit(
    data: WindowData,
    inputs: InputSpec,
    outputs: OutputSpec,
    config: ForecastConfig,
    name: str,
    on_step: OnStep | None = None,
    cuts: Cuts | None = None,
) -> Fitted:
    """Trains one model on the windows of all series, and keeps the weights that were best on validation.

    `cuts` says what validates and what is not looked at; None: the config's share validates, nothing is left.
    On the CPU the same seed and number of threads give the same weights. Raises ValueError naming the field that is
    wrong, or saying how many events are needed where there are too few windows.
    """
    card = forecast_card(inputs, outputs, config, name)
    parts = split(data, outputs.horizon, cuts or last_share(data, config.validation, outputs.horizon))
    scale = series_scale(data, card.target_columns, parts.cuts.validation)
    with repeatable(config) as device:
        windows = Windows(data, outputs.horizon, card.target_columns, scale, device)
        source = _Source(windows, parts, config, outputs.horizon)
        floor = _floor(data, parts.cuts.validation)
        config = _long_enough(config, source.steps)
        trained = _train(card, floor, source, config, on_step or (lambda *_: None), device)
        model, card = _blended(trained, card)
        validation = float(source.errors(model.to(device).eval()).double().square().mean())
        model.cpu()
    best = kept(trained.history, config)
    metrics = {"validation_mse": validation, "train_loss": best.train_loss, "best_epoch": best.number}
    naive = naive_scores(
        data, parts.validation, outputs.horizon, card.target_columns, inputs.freq, Yardstick(scale, scale)
    )
    metrics |= {f"naive_{season}_mse": scores.overall()["mse"] for season, scores in naive.items()}
    trained_until = int(data.ts[np.concatenate([parts.train, parts.validation]) + outputs.horizon].max())
    ranges = _ranges(data, inputs.features, parts.cuts.test)
    seen = {"trained_until": trained_until, "ranges": ranges, "metrics": metrics}
    return Fitted(model.eval(), msgspec.structs.replace(card, **seen), trained.history, parts)


def _long_enough(config: ForecastConfig, steps: int) -> ForecastConfig:
    if config.epochs is not None:
        return config
    epochs = max(EPOCHS, -(-_STEPS // steps))
    return replace(config, epochs=epochs, patience=config.patience * epochs // EPOCHS)


@dataclass(slots=True)
class _Trained:
    """Networks trained one after the other, each by itself."""

    members: list[Member] = field(default_factory=list)
    history: list[Epoch] = field(default_factory=list)
    """All their epochs, numbered on."""
    errors: list[Tensor] = field(default_factory=list)
    """Each one's errors on validation, (T,), in z-scores."""


def _train(
    card: Card, floor: Tensor, source: "_Source", config: ForecastConfig, on_step: OnStep, device: torch.device
) -> _Trained:
    settings, trained, began = card.networks, _Trained(), time.monotonic()
    for number, each in enumerate(settings):
        left = None if config.seconds is None else config.seconds - (time.monotonic() - began)
        if number and left is not None and left <= 0:
            break
        network = member(card, each, floor)
        alone = Forecaster([network], [1.0]).to(device)
        share = replace(config, seconds=None if left is None else max(left, 1e-3) / (len(settings) - number))
        tell = partial(_tell, on_step, number, len(settings), list(trained.history))
        epochs = optimise(alone, source, share, tell)
        trained.history += [replace(each, number=len(trained.history) + each.number) for each in epochs]
        trained.members += [network.cpu()]
        trained.errors.append(source.errors(alone))
    return trained


def _tell(
    on_step: OnStep, number: int, count: int, earlier: list[Epoch], done: int, total: int, epochs: list[Epoch]
) -> None:
    on_step(number * total + done, count * total, earlier + epochs)


def _blended(trained: _Trained, card: Card) -> tuple[Forecaster, Card]:
    """The best mean of the networks, and its card."""
    errors = torch.stack(trained.errors).double().cpu().numpy()
    weights = weigh(errors)
    used = np.flatnonzero(weights)
    members = [trained.members[place] for place in used]
    model = Forecaster(members, weights[used].tolist(), card.output.non_negative)
    settings = tuple(card.members[place] for place in used) if card.members else ()
    return model, msgspec.structs.replace(card, members=settings)


@torch.no_grad()
def forecast(model: Forecaster, data: WindowData, ends: Rows) -> npt.NDArray[np.float32]:
    """The model's forecasts (N,K,O), raw units, for the windows that end in these rows; at least one."""
    back = np.arange(1 - data.seq_len, 1)
    parts = np.array_split(ends, -(-len(ends) // _EVALUATION_BATCH))
    return torch.cat([model(torch.from_numpy(data.values[part[:, None] + back])) for part in parts]).numpy()


class _Source:
    """Batches of windows, in a new order for each training pass; of many windows a sample."""

    def __init__(self, windows: Windows, parts: Split, config: ForecastConfig, horizon: int) -> None:
        self._windows, self._size = windows, config.batch
        self._train, self._order = torch.from_numpy(parts.train), torch.Generator().manual_seed(config.seed)
        self._count = min(len(self._train), config.epoch_windows)
        most = max(1, min(len(parts.validation), config.epoch_windows, _EVALUATED // horizon))
        evenly = np.linspace(0, len(parts.validation) - 1, most)
        self._validation = torch.from_numpy(parts.validation[evenly.astype(int)])
        self.steps = -(-self._count // self._size)

    def train(self) -> Iterator[Batch]:
        order = torch.randperm(len(self._train), generator=self._order)
        return self._batches(self._train[order[: self._count]], self._size)

    def validation(self) -> Iterator[Batch]:
        return self._batches(self._validation, _EVALUATION_BATCH)

    @torch.no_grad()
    def errors(self, model: Forecaster) -> Tensor:
        """A model's errors (T,) at all observed targets of the validation windows, in z-scores."""
        batches = map(self._windows.batch, torch.split(self._validation, _EVALUATION_BATCH))
        return torch.cat([((model(batch.x) - batch.y) / batch.scale)[batch.observed].cpu() for batch in batches])

    def _batches(self, ends: Tensor, size: int) -> Iterator[Batch]:
        return (self._windows.batch(team.share(part)) for part in torch.split(ends, size))


def _floor(data: WindowData, before: int) -> Tensor:
    scale = series_scale(data, range(data.values.shape[1]), before)
    return torch.from_numpy(FLOOR * scale.min(axis=0)).float()


def _ranges(data: WindowData, features: tuple[str, ...], before: int) -> dict[str, tuple[float, float]]:
    seen = data.values[data.ts < before]
    pairs = zip(features, seen.min(axis=0), seen.max(axis=0), strict=True)
    return {name: (float(least), float(greatest)) for name, least, greatest in pairs}
