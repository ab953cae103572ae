"""Training a forecaster: from a history to windows, a fitted network, and a candidate for the registry."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace

import msgspec
import numpy as np

from deploy.data import DataSource
from deploy.settings.serve import window_config
from deploy.training.registration import (
    EXAMPLES,
    Candidate,
    RegisteredModel,
    find_champion,
    register,
    training_progress,
)
from model.artifacts.registry import Registry
from model.artifacts.versions import Version, check_name
from model.card import Card, InputSpec, OutputSpec
from model.plots import plot_forecasts
from model.seasons import seasonal_lags
from model.training import distributed
from model.training.forecasting import (
    FittedForecaster,
    ForecastConfig,
    PreparedWindows,
    fit_forecaster,
    prepare,
    window_inputs,
)
from model.training.loop import Epoch
from model.windows import WindowData
from pipeline.datasets.history import History, infer_freq, windows
from pipeline.windows.grid import Aggregate, WindowConfig
from pipeline.windows.sliding import Codes
from tidecast.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

DEFAULT_HORIZON = 12
MAX_HORIZON = 96
LOOK_BACK_SEASONS, SHORT_SERIES_SEASONS = 15, 3
MAX_SEQ_LEN = 720
"""The longest horizon and look-back that are inferred, in steps or seasons; options may be longer.

The look-back on a short series is up to half of it, if that is at most three of its shortest seasons.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """A forecaster to train; None is inferred from the data."""

    name: str
    """The registered model's name."""
    features: tuple[str, ...] = ("value",)
    """The values of an event."""
    targets: tuple[str, ...] | None = None
    """The features that are forecast; None is the first."""
    known: tuple[str, ...] = ()
    """The features that are known for the horizon too; none of them is forecast."""
    non_negative: bool = False
    """Whether no forecast may be below zero."""
    freq: str | None = None
    """The spacing of steps, such as 30m; None is the most common one in the data."""
    horizon: int | None = None
    """Steps to forecast; None is a day of them, or of longer steps the next season (a week, a year); fewer if gaps
    leave too few windows."""
    max_gap: int | None = None
    """The longest gap, in missing steps, that is filled; None is the default of InputSpec, and more if that leaves too
    few windows."""
    aggregate: Aggregate | None = None
    """How several events in a step are aggregated; needs a freq."""
    lateness: int | None = None
    """Milliseconds of stream time for which a step waits for events that are out of order; None is 0."""
    seq_len: int | None = None
    """Steps to look back; None is a quarter of the longest series (up to half, for three seasons), up to 720 or 15
    seasons, in whole seasons, and short enough to fit between gaps."""
    config: ForecastConfig = field(default_factory=ForecastConfig)
    """The network and its training."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.aggregate is not None and self.freq is None:
            raise ConfigError("aggregate: needs --freq, the spacing of the steps that events are aggregated in")
        if unknown := sorted(set(self.targets or ()) - set(self.features)):
            raise ConfigError(f"targets: {unknown[0]!r} is not one of the features {', '.join(self.features)}")
        if wrong := sorted(set(self.known) - set(self.features) | set(self.known) & set(self.forecast)):
            raise ConfigError(f"known: {wrong[0]!r} must be one of the features, and not one that is forecast")
        if self.known and self.aggregate is not None:
            raise ConfigError("known: future values come one a step, so they take no aggregate")
        for option, names in (("features", self.features), ("known", self.known)):
            if len(set(names)) < len(names):
                raise ConfigError(f"{option}: {', '.join(names)} must be different names")

    @property
    def forecast(self) -> tuple[str, ...]:
        """The features that are forecast."""
        return self.targets or self.features[:1]


def train(history: History, job: TrainJob, registry: Registry) -> RegisteredModel:
    """Fit a model to a history, log and register it, and make it champion if the name has none.

    Raises DataError for a history that is too short, ConfigError naming an impossible setting; RegistryError.
    """
    return train_after(find_champion(registry, job.name), history, job, registry)


def train_after(champion: Version | None, history: History, job: TrainJob, registry: Registry) -> RegisteredModel:
    """`train`, with the windows of this champion."""
    prepared = prepare_windows(history, job, champion)
    with training_progress(format_epoch) as on_step:
        fitted = fit_forecaster(prepared, on_step)
    if not distributed.is_rank_zero():
        raise SystemExit(0)  # rank zero registers what this process helped to train
    candidate = forecast_candidate(fitted, prepared.data, history, job)
    best, naive = format_epoch(candidate.best()), fitted.naive_mse
    logger.info(f"best: {best}, seasonal naive {naive:.3f}, after {len(fitted.history)} epochs")
    return register(candidate, registry)


def prepare_windows(history: History, job: TrainJob, champion: Version | None) -> PreparedWindows:
    """The windows and the card that a forecaster's training on a history starts with, like those of this champion.

    Raises ValueError for a history that is too short or an impossible setting, naming it.
    """
    job = inherit_windows(job, champion)
    if history.frame.is_empty():
        hint = "; events with several values need --features" if "schema" in history.invalid else ""
        raise DataError(f"there are no events to train on: {dict(history.invalid) or 'the history is empty'}{hint}")
    inputs, outputs = infer_specs(history, job)
    step = f"{inputs.freq} each" if inputs.freq else "one an event"
    logger.info(f"{len(history.frame):,} events: {inputs.seq_len} steps back, {outputs.horizon} ahead, {step}")
    data = windows(history, window_config(inputs))
    logger.info(f"{data.counts.in_words()}: {len(data):,} windows")
    return prepare(data, inputs, outputs, job.config, job.name)


def inherit_windows(job: TrainJob, champion: Version | None) -> TrainJob:
    """The job, with the champion's windows wherever it leaves them to be inferred.

    So a service can switch to the new version at any time: another look-back or spacing would need other windows.
    """
    if champion is None or "input" not in champion.tags:
        return job
    inputs = msgspec.json.decode(champion.tags["input"], type=InputSpec)
    if inputs.features != job.features or job.freq not in (None, inputs.freq):
        return job
    logger.info(f"windows as those of {champion.label}")
    names = [each.name for each in fields(WindowConfig) if getattr(job, each.name) is None]
    horizon = job.horizon or msgspec.json.decode(champion.tags["output"], type=OutputSpec).horizon
    return replace(job, **{name: getattr(inputs, name) for name in names}, horizon=horizon)


def infer_specs(history: History, job: TrainJob) -> tuple[InputSpec, OutputSpec]:
    """The model's inputs and outputs: what the job sets, and for the rest what suits the history's spacing."""
    freq = job.freq or infer_freq(history.frame)
    lags = seasonal_lags(freq)
    longest = max(history.frame["series"].value_counts()["count"].to_list())
    season = min(lags.values(), default=DEFAULT_HORIZON)
    horizon = job.horizon or max(1, min(season, MAX_HORIZON, int(longest * job.config.validation)))
    room, unit = _longest_look_back(longest, lags)
    inputs = InputSpec(
        seq_len=max(horizon, 2),
        features=job.features,
        known=job.known,
        freq=freq,
        aggregate=job.aggregate,
        lateness=job.lateness or 0,
    )
    for gap in [job.max_gap] if job.max_gap is not None else _gaps(inputs.max_gap, unit):
        inputs = msgspec.structs.replace(inputs, max_gap=gap)
        run = windows(history, window_config(inputs)).run
        if 2 * _window_count(run, horizon, horizon) >= len(run):
            break
    while job.horizon is None and horizon > 1 and 8 * _window_count(run, horizon, horizon) < len(run):
        horizon //= 2
    outputs = OutputSpec(horizon=horizon, targets=job.forecast, non_negative=job.non_negative)
    return msgspec.structs.replace(inputs, seq_len=job.seq_len or _look_back(run, room, unit, horizon)), outputs


def _longest_look_back(longest: int, lags: Mapping[str, int]) -> tuple[int, int]:
    """The longest look-back on a series of so many steps, and the unit that it is a multiple of: a season if it can."""
    share = max(longest // 4, min(longest // 2, SHORT_SERIES_SEASONS * min(lags.values(), default=0)))
    room = min(MAX_SEQ_LEN, share, LOOK_BACK_SEASONS * max(lags.values(), default=MAX_SEQ_LEN))
    unit = next((lag for lag in sorted(lags.values()) if lag <= room), 1)
    return room // unit * unit, unit


def _gaps(least: int, season: int) -> list[int]:
    """Gaps to try to fill, in steps: the least, then more, up to a sixth of a season."""
    return [least, *(gap for gap in (2 * least, 4 * least, 8 * least) if 6 * gap <= season)]


def _look_back(run: Codes, longest: int, unit: int, horizon: int) -> int:
    """The longest look-back, in whole units up to `longest`, that leaves half of the windows of the shortest.

    `run` (T,) numbers the steps that follow each other without a gap.
    """
    least = max(horizon, 2)
    tried = range(longest, least, -unit)
    enough = max(1, _window_count(run, least, horizon) / 2)
    return next((seq_len for seq_len in tried if _window_count(run, seq_len, horizon) >= enough), least)


def _window_count(run: Codes, seq_len: int, horizon: int) -> int:
    """How many windows with their horizon fit into such runs."""
    return int(np.maximum(np.bincount(run) - seq_len - horizon + 1, 0).sum())


def format_epoch(epoch: Epoch) -> str:
    """An epoch's validation error, for people."""
    return f"validation error {epoch.validation_loss:.3f}"


def forecast_candidate(fitted: FittedForecaster, data: WindowData, history: History, job: TrainJob) -> Candidate:
    """A fitted forecaster, ready to be registered."""
    card, rows = fitted.card, fitted.split.validation[-EXAMPLES:]
    ranges = {f"{name}_range": f"{low:g} to {high:g}" for name, (low, high) in card.ranges.items()}
    members = {"members": json.dumps(card.members)} if card.members else {}
    return Candidate(
        model=fitted.model,
        card=card,
        history=fitted.history,
        loss_name="validation_mse",
        examples=window_inputs(data, card, rows),
        params=asdict(job.config) | card.hyperparameters | _shape_params(card.input, card.output) | ranges | members,
        tags={
            "offsets": json.dumps(dict(history.offsets)),
            "trained_until": str(card.trained_until),
            "input": msgspec.json.encode(card.input).decode(),
            "output": msgspec.json.encode(card.output).decode(),
        },
        draw=lambda folder: plot_forecasts(fitted, data, folder / "forecasts.png"),
    )


def _shape_params(inputs: InputSpec, outputs: OutputSpec) -> dict[str, object]:
    return {
        "freq": inputs.freq,
        "seq_len": inputs.seq_len,
        "features": ",".join(inputs.features),
        "horizon": outputs.horizon,
        "targets": ",".join(outputs.targets),
    }


def run_forecaster_training(job: TrainJob, source: DataSource, tracking_uri: str) -> dict[str, object]:
    """`tidecast train`: a job on a topic's or a file's history."""
    registered = train(source.history(job.freq), job, Registry(tracking_uri))
    card = registered.candidate.card
    assert isinstance(card, Card)
    return registered.summary(freq=card.input.freq, seq_len=card.input.seq_len, horizon=card.output.horizon)
