"""Forecasting: one global model, trained on the windows of all series and validated on the latest part of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from model.card import Card, InputSpec, OutputSpec
from model.evaluation.baselines import naive_scores
from model.evaluation.intervals import Calibration, window_scales
from model.evaluation.metrics import ErrorScale, Scores, series_scale
from model.evaluation.splits import FAR, Cuts, Split, chunks, last_share, sample, split, targets
from model.levels import Levels
from model.networks.forecast import (
    EnsembleMember,
    ForecastNetwork,
    build_member,
    build_network,
)
from model.networks.normalization import Pooled
from model.online.steps import scored_steps
from model.spikes import spans, without_spikes
from model.training.batches import WindowBatches
from model.training.ensemble import member_names, weigh
from model.training.forecast_config import ForecastConfig, forecast_card, with_inputs_of
from model.training.loop import Epoch, OnStep, kept, repeatable
from model.training.members import TrainedMember, WindowSource, numbered, side_by_side
from model.windows import Rows, WindowData

FLOOR = 0.01
"""The minimum scale of a window, relative to the smallest standard deviation of a series."""
_EVALUATION_BATCH = 1024
EPOCHS, _STEPS = 30, 5_000


@dataclass(frozen=True, slots=True)
class Warm:
    """A trained model whose weights initialise another one (warm start)."""

    model: ForecastNetwork
    card: Card


@dataclass(frozen=True, slots=True)
class FittedForecaster:
    """A trained model on the CPU with its card and history; losses are MSE in z-scores."""

    model: ForecastNetwork
    card: Card
    history: list[Epoch]
    split: Split
    spikes: Mapping[str, int] = field(default_factory=dict)
    """How many values of each series were winsorised in training."""
    worst: Mapping[str, float] = field(default_factory=dict)
    """The few series that make up most of the squared error in validation, each with its share."""
    calibration: Calibration | None = None
    """The errors in validation; None if there was none."""

    @property
    def naive_mse(self) -> float:
        """The error of the best naive forecast on the same validation windows."""
        return self.card.best_naive[1]


@dataclass(frozen=True, slots=True)
class PreparedWindows:
    """The data, split, card and settings that training a forecaster needs."""

    data: WindowData
    split: Split
    card: Card
    """The card of the untrained networks; a blend's lists all candidates."""
    config: ForecastConfig
    spikes: Mapping[str, int] = field(default_factory=dict)
    """How many values of each series were winsorised."""

    def first(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """The card's inputs for the first training windows."""
        return window_inputs(self.data, self.card, self.split.train[:count])


def window_inputs(data: WindowData, card: Card, ends: Rows) -> dict[str, npt.NDArray[Any]]:
    """The card's named inputs for the windows with these end rows, each followed by its horizon."""
    return lowered_windows(data, card, ends)[0]


def lowered_windows(
    data: WindowData, card: Card, ends: Rows
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.float64] | None]:
    """`window_inputs`, and what was subtracted from them (model/levels.py)."""
    rows, back, ahead = ends[:, None], np.arange(1 - data.seq_len, 1), np.arange(1, card.output.horizon + 1)
    arrays: dict[str, npt.NDArray[Any]] = {"x": data.values[rows + back], "step": data.step[ends]}
    if card.known_columns:
        arrays["future"] = data.values[rows + ahead][..., card.known_columns].astype(np.float32)
    lowered, shifts = Levels.of(card).lowered(arrays)
    return {name: lowered[name] for name in card.inputs}, shifts


def prepare(
    data: WindowData,
    inputs: InputSpec,
    outputs: OutputSpec,
    config: ForecastConfig,
    name: str,
    cuts: Cuts | None = None,
) -> PreparedWindows:
    """Split the windows of all series, and describe the networks to be trained.

    `cuts` are the split times; None: the config's fraction validates, and there is no test part. Raises ConfigError
    naming the wrong field, or DataError saying how many events are needed if there are too few windows.
    """
    parts = split(data, outputs.horizon, cuts or last_share(data, config.validation, outputs.horizon))
    data, spikes = _without_spikes(data, inputs, parts.cuts.test) if config.winsorise else (data, {})
    learnt = data.step[data.ts < parts.cuts.validation]
    card = forecast_card(inputs, outputs, config, name, int(np.ptp(learnt)), len(parts.train))
    card = msgspec.structs.replace(
        card,
        floors=_sizes(card, _pooled(data, parts.cuts.validation).floor.double().numpy()),
        spans=_sizes(card, spans(data, parts.cuts.test)) if config.winsorise else {},
    )
    return PreparedWindows(data, parts, card, config, spikes)


def fit(
    data: WindowData,
    inputs: InputSpec,
    outputs: OutputSpec,
    config: ForecastConfig,
    name: str,
    on_step: OnStep | None = None,
    cuts: Cuts | None = None,
    warm: Warm | None = None,
) -> FittedForecaster:
    """`prepare` and `fit_forecaster` in one, with their errors."""
    return fit_forecaster(prepare(data, inputs, outputs, config, name, cuts), on_step, warm)


def fit_forecaster(
    prepared: PreparedWindows, on_step: OnStep | None = None, warm: Warm | None = None
) -> FittedForecaster:
    """Trains one model on the windows of all series and keeps the weights with the best validation loss.

    `warm` is a model whose weights initialise the networks with the same settings. On the CPU the same seed and number
    of threads give the same weights. Raises ConfigError naming the wrong field.
    """
    data, parts, card, config = prepared.data, prepared.split, prepared.card, prepared.config
    scale = series_scale(data, card.target_columns, parts.cuts.validation)
    with repeatable(config) as device:
        sources = _sources(prepared, scale, device)
        pooled = _pooled(data, parts.cuts.validation)
        members = [build_member(card, each, pooled).to(device) for each in card.networks]
        if warm is not None:
            _warm_start(members, card, warm)
        config = _with_epochs(config, sources[0].steps)
        names = member_names(card.members) or [""]
        trained = side_by_side(members, names, sources, config, on_step or (lambda *_: None))
        model, card = _blended(trained, card)
        validation = float(sources[0].errors(model.to(device).eval()).double().square().mean())
        model.cpu()
    history = numbered(each.history for each in trained)
    best = kept(history, config)
    metrics = {"validation_mse": validation, "train_loss": best.train_loss, "best_epoch": best.number}
    metrics |= _naive_metrics(data, parts, card, scale)
    worst, calibration = _validated(model.eval(), data, parts.validation, card, scale)
    seen = {
        "trained_until": int(data.ts[np.concatenate([parts.train, parts.validation]) + card.output.horizon].max()),
        "ranges": _ranges(data, card.input.features, parts.cuts.test),
        "metrics": metrics,
        "residuals": calibration.residuals(scored_steps(card.output.horizon), card.output.targets),
    }
    card = msgspec.structs.replace(card, **seen)
    return FittedForecaster(model, card, history, parts, prepared.spikes, worst, calibration)


def last_value(inputs: InputSpec, outputs: OutputSpec, name: str) -> FittedForecaster:
    """The last-value forecast as a model, without data to train or validate on."""
    card, none = forecast_card(inputs, outputs, ForecastConfig(arch="naive"), name), np.array([], np.int64)
    card = msgspec.structs.replace(card, floors=dict.fromkeys(inputs.features, float(np.finfo(np.float32).tiny)))
    return FittedForecaster(build_network(card), card, [], Split(none, none, none, Cuts(FAR)))


def _sources(prepared: PreparedWindows, scale: npt.NDArray[np.float64], device: torch.device) -> list[WindowSource]:
    """The batches of each network, each shuffled with its own seed."""
    data, card, config, horizon = prepared.data, prepared.card, prepared.config, prepared.card.output.horizon
    levels = Levels.of(card)
    windows = WindowBatches(data, horizon, card.target_columns, scale, device, card.known_columns, levels)
    return [
        WindowSource(windows, prepared.split, horizon, config.epoch_windows, config.batch, config.seed + place)
        for place in range(len(card.networks))
    ]


def _naive_metrics(data: WindowData, parts: Split, card: Card, scale: npt.NDArray[np.float64]) -> dict[str, float]:
    error_scale = ErrorScale(scale, scale)
    naive = naive_scores(data, parts.validation, card.output.horizon, card.target_columns, card.input.lags, error_scale)
    return {f"naive_{season}_mse": scores.overall()["mse"] for season, scores in naive.items()}


def _validated(
    model: ForecastNetwork, data: WindowData, ends: Rows, card: Card, scale: npt.NDArray[np.float64]
) -> tuple[dict[str, float], Calibration]:
    """The series that make up most of a model's error over a sample of these windows, and its errors there."""
    columns, horizon, errors, ends = card.target_columns, card.output.horizon, [], sample(ends)
    scores = Scores(ErrorScale(scale, scale), horizon)
    for part in chunks(ends):
        actual, observed = targets(data, part, horizon, columns)
        predicted = forecast(model, data, part)
        scores.add(data.series[part], predicted, actual, observed)
        errors.append(np.where(observed, actual - predicted, np.nan))
    return scores.worst(data.names), Calibration.of(np.concatenate(errors), window_scales(data, ends, card))


def _warm_start(members: list[EnsembleMember], card: Card, warm: Warm) -> None:
    for each, settings in zip(members, card.networks, strict=True):
        for before, known in zip(warm.model.members, warm.card.networks, strict=True):
            if settings == known:
                pooled = ("floor", "ahead.mean", "ahead.deviation")
                weights = {name: value for name, value in before.state_dict().items() if not name.endswith(pooled)}
                each.load_state_dict(weights, strict=False)


def _with_epochs(config: ForecastConfig, steps: int) -> ForecastConfig:
    if config.epochs is not None:
        return config
    epochs = max(EPOCHS, -(-_STEPS // steps))
    return replace(config, epochs=epochs, patience=config.patience * epochs // EPOCHS)


def _blended(trained: list[TrainedMember], card: Card) -> tuple[ForecastNetwork, Card]:
    """The weighted ensemble of the trained members, without those of weight 0, and its card."""
    weights = weigh(torch.stack([each.errors for each in trained]).double().cpu().numpy())
    used = [(each, weight) for each, weight in zip(trained, weights.tolist(), strict=True) if weight]
    members, kept_weights = [each.member.cpu() for each, _ in used], [weight for _, weight in used]
    model = ForecastNetwork(members, kept_weights, card.output.clipped, card.known_columns, Levels.of(card))
    settings = tuple(card.members[each.place] for each, _ in used) if card.members else ()
    networks = [card.networks[each.place] for each, _ in used]
    return model, msgspec.structs.replace(card, members=settings, input=with_inputs_of(card.input, networks))


@torch.no_grad()
def forecast(
    model: ForecastNetwork, data: WindowData, ends: Rows, future: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float64]:
    """The model's forecasts (N,K,O), raw units, for the windows with these end rows; at least one.

    `future` (N,K,C) holds the future covariates of a model that takes them; None: the actual values of the horizon.
    """
    if model.known and future is None:
        ahead = data.values[ends[:, None] + np.arange(1, model.horizon + 1)]
        future = ahead[..., model.known].astype(np.float32)
    back = np.arange(1 - data.seq_len, 1)
    forecasts: list[npt.NDArray[np.floating]] = []
    for some in np.array_split(np.arange(len(ends)), -(-len(ends) // _EVALUATION_BATCH)):
        rows, shifts = model.levels.lowered({"x": data.values[ends[some, None] + back], "step": data.step[ends[some]]})
        x, step = (torch.from_numpy(rows[name]) for name in ("x", "step"))
        made = model(x, step, None if future is None else torch.from_numpy(future[some]))
        forecasts.append(model.levels.raised(made.numpy(), shifts))
    return np.concatenate(forecasts, dtype=np.float64)


def _pooled(data: WindowData, before: int) -> Pooled:
    scale, seen = series_scale(data, range(data.values.shape[1]), before), data.values[data.ts < before]
    per_feature = (FLOOR * scale.min(axis=0), seen.mean(axis=0, dtype=np.float64), np.median(scale, axis=0))
    return Pooled(*(torch.from_numpy(each).float() for each in per_feature))


def _sizes(card: Card, sizes: npt.NDArray[np.float64]) -> dict[str, float]:
    """Finite sizes (F,) by feature, without the future covariates: the graph has their mean in training, and so they
    are left as they are."""
    named = zip(card.input.features, sizes.tolist(), strict=True)
    return {name: size for name, size in named if name not in card.input.known and np.isfinite(size)}


def _without_spikes(data: WindowData, inputs: InputSpec, before: int) -> tuple[WindowData, Mapping[str, int]]:
    columns = [column for column, name in enumerate(inputs.features) if name not in inputs.known]
    values, spikes = without_spikes(data, columns, before)
    changed: Any = data
    return replace(changed, values=values) if spikes else data, spikes


def _ranges(data: WindowData, features: tuple[str, ...], before: int) -> dict[str, tuple[float, float]]:
    seen = data.values[data.ts < before]
    pairs = zip(features, seen.min(axis=0), seen.max(axis=0), strict=True)
    return {name: (float(least), float(greatest)) for name, least, greatest in pairs}
