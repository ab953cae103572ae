"""Training a forecaster: history -> windows -> fit -> a candidate for the registry."""

import json
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace

import msgspec
import numpy as np

from deploy.console import progress, say
from deploy.settings.files import open_log
from deploy.settings.serve import window_config
from deploy.training.registration import EXAMPLES, Candidate, RegisteredModel, champion, register, watched
from model.artifacts.registry import Registry, Version, check_name
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
from pipeline.datasets.history import History, between, from_frame, infer_freq, read_topic, windows
from pipeline.datasets.measurements import Columns, measurements, stem_of
from pipeline.datasets.tables import Table, read_table
from pipeline.windows.grid import Aggregate
from pipeline.windows.sliding import Codes
from tidecast.errors import ConfigError, DataError

DEFAULT_HORIZON = 12
MAX_HORIZON = 96
LOOK_SEASONS, SHORT_SEASONS = 15, 3
MAX_SEQ_LEN = 720
"""The longest horizon and look-back taken by themselves, in steps or seasons; longer ones can be asked for.

Of a short series half is looked back on, if that is not more than three of its shortest seasons.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """What to train; None is found from the data."""

    name: str
    """The registered model's name."""
    features: tuple[str, ...] = ("value",)
    """The values of an event."""
    targets: tuple[str, ...] | None = None
    """Those of them that are forecast; None is the first."""
    known: tuple[str, ...] = ()
    """Those of the features that are known for the horizon too; none of them is forecast."""
    non_negative: bool = False
    """Whether no forecast may be below zero."""
    freq: str | None = None
    """The grid, such as 30m; None is the spacing that most of the data has."""
    horizon: int | None = None
    """Steps to forecast; None is a day of them, or where a step is longer the next season (a week, a year); fewer where
    breaks leave no room."""
    max_gap: int | None = None
    """The longest hole in the grid, in steps, that is filled; None is the specification's own, and more where that
    leaves too few windows."""
    aggregate: Aggregate | None = None
    """What several events in a step become together; needs a freq."""
    lateness: int | None = None
    """Milliseconds of stream time for which a step waits for events that are out of order; None is none."""
    seq_len: int | None = None
    """Steps to look back; None is a quarter of the longest series (up to half, for three seasons), up to 720 or 15
    seasons, in whole seasons, and short enough to fit between breaks."""
    config: ForecastConfig = field(default_factory=ForecastConfig)
    """The network and its training."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.aggregate is not None and self.freq is None:
            raise ConfigError("aggregate: needs --freq, the steps that events are put together in")
        if unknown := sorted(set(self.targets or ()) - set(self.features)):
            raise ConfigError(f"targets: {unknown[0]!r} is none of the features {', '.join(self.features)}")
        if wrong := sorted(set(self.known) - set(self.features) | set(self.known) & set(self.forecast)):
            raise ConfigError(f"known: {wrong[0]!r} must be one of the features, and not one that is forecast")
        if self.known and self.aggregate is not None:
            raise ConfigError("known: what lies ahead comes one value a step, and goes with no aggregate")
        for called, names in (("features", self.features), ("known", self.known)):
            if len(set(names)) < len(names):
                raise ConfigError(f"{called}: {', '.join(names)} must be different names")

    @property
    def forecast(self) -> tuple[str, ...]:
        """The features that are forecast."""
        return self.targets or self.features[:1]


def train(history: History, job: TrainJob, registry: Registry) -> RegisteredModel:
    """Fit a model to a history, log it, register it, and make it champion if the name has none.

    Raises DataError for a history that is too short, ConfigError naming an impossible setting; RegistryError.
    """
    return train_after(champion(registry, job.name), history, job, registry)


def train_after(serving: Version | None, history: History, job: TrainJob, registry: Registry) -> RegisteredModel:
    """`train`, with the windows of the version that served when the work began."""
    prepared = prepare_windows(history, job, serving)
    with watched(in_words) as on_step:
        fitted = fit_forecaster(prepared, on_step)
    if not distributed.is_rank_zero():
        raise SystemExit(0)  # the leader registers what this process helped to train
    made = candidate(fitted, prepared.data, history, job)
    best, naive = made.best(), fitted.naive_mse
    say(f"best: {in_words(best)}, seasonal naive {naive:.3f}, after {len(fitted.history)} epochs")
    return register(made, registry)


def prepare_windows(history: History, job: TrainJob, serving: Version | None) -> PreparedWindows:
    """What a forecaster's training on a history begins with; `serving` is the version whose windows it keeps to.

    Raises ValueError for a history that is too short or an impossible setting, naming it.
    """
    job = like_before(job, serving)
    if history.frame.is_empty():
        hint = "; events with several values need --features" if "schema" in history.invalid else ""
        raise DataError(f"there are no events to learn from: {dict(history.invalid) or 'the history is empty'}{hint}")
    inputs, outputs = shapes(history, job)
    step = f"{inputs.freq} each" if inputs.freq else "one an event"
    say(f"{len(history.frame):,} events: {inputs.seq_len} steps back, {outputs.horizon} ahead, {step}")
    data = windows(history, window_config(inputs))
    say(f"{data.counts.in_words()}: {len(data):,} windows")
    return prepare(data, inputs, outputs, job.config, job.name)


def like_before(job: TrainJob, version: Version | None) -> TrainJob:
    """The job, with the windows of the version that serves wherever it leaves them open.

    So what serves can be replaced at any time: another look-back or spacing would need other windows.
    """
    if version is None or "input" not in version.tags:
        return job
    before = msgspec.json.decode(version.tags["input"], type=InputSpec)
    if before.features != job.features or job.freq not in (None, before.freq):
        return job
    say(f"windows as those of {version.label}")
    names = ("freq", "max_gap", "aggregate", "lateness", "seq_len")
    kept = {name: getattr(before, name) for name in names if getattr(job, name) is None}
    horizon = job.horizon or msgspec.json.decode(version.tags["output"], type=OutputSpec).horizon
    return replace(job, **kept, horizon=horizon)


def shapes(history: History, job: TrainJob) -> tuple[InputSpec, OutputSpec]:
    """What the model will take and give: what the job says, and for the rest what suits the history's spacing."""
    freq = job.freq or infer_freq(history.frame)
    lags = seasonal_lags(freq)
    season = min(lags.values(), default=DEFAULT_HORIZON)
    longest = max(history.frame["series"].value_counts()["count"].to_list())
    horizon = job.horizon or max(1, min(season, MAX_HORIZON, int(longest * job.config.validation)))
    share = max(longest // 4, min(longest // 2, SHORT_SEASONS * min(lags.values(), default=0)))
    room = min(MAX_SEQ_LEN, share, LOOK_SEASONS * max(lags.values(), default=MAX_SEQ_LEN))
    unit = next((lag for lag in sorted(lags.values()) if lag <= room), 1)
    room = room // unit * unit
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
        if 2 * _left(run, horizon, horizon) >= len(run):
            break
    while job.horizon is None and horizon > 1 and 8 * _left(run, horizon, horizon) < len(run):
        horizon //= 2
    outputs = OutputSpec(horizon=horizon, targets=job.forecast, non_negative=job.non_negative)
    return msgspec.structs.replace(inputs, seq_len=job.seq_len or _between_breaks(run, room, unit, horizon)), outputs


def _gaps(least: int, season: int) -> list[int]:
    """Holes that may be filled, in steps: the least, then more, up to a sixth of a season."""
    return [least, *(gap for gap in (2 * least, 4 * least, 8 * least) if 6 * gap <= season)]


def _between_breaks(run: Codes, longest: int, unit: int, horizon: int) -> int:
    """The longest look-back, in whole units up to `longest`, that leaves half of the windows of the shortest.

    `run` (T,) numbers the steps that follow each other without a break.
    """
    least = max(horizon, 2)
    tried = range(longest, least, -unit)
    enough = max(1, _left(run, least, horizon) / 2)
    return next((seq_len for seq_len in tried if _left(run, seq_len, horizon) >= enough), least)


def _left(run: Codes, seq_len: int, horizon: int) -> int:
    """Windows with their horizon in them that such runs hold."""
    return int(np.maximum(np.bincount(run) - seq_len - horizon + 1, 0).sum())


def in_words(epoch: Epoch) -> str:
    """How a training goes, after an epoch."""
    return f"validation error {epoch.validation_loss:.3f}"


def candidate(fitted: FittedForecaster, data: WindowData, history: History, job: TrainJob) -> Candidate:
    """A fitted forecaster with all that is kept of it."""
    card, rows = fitted.card, fitted.split.validation[-EXAMPLES:]
    ranges = {f"{name}_range": f"{low:g} to {high:g}" for name, (low, high) in card.ranges.items()}
    members = {"members": json.dumps(card.members)} if card.members else {}
    return Candidate(
        model=fitted.model,
        card=card,
        history=fitted.history,
        loss="validation_mse",
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


def learn(
    job: TrainJob, topic: str | None, data: str | None, columns: Columns, bootstrap: str, tracking_uri: str
) -> dict[str, object]:
    """`tidecast train`: a job on a topic's history, or where there is no topic on a file's."""
    trained = train(read_history(bootstrap, topic, data, columns, job.freq), job, Registry(tracking_uri))
    return trained.summary(**_lengths(trained))


def read_history(
    bootstrap: str,
    topic: str | None,
    data: str | None,
    columns: Columns,
    freq: str | None,
    span: tuple[int | None, int | None] = (None, None),
) -> History:
    """A topic's history, or where there is no topic a file's. Raises DataError, LogError, ConfigError.

    Of a span, from its first time up to, without, its second: a topic's records written in it, a file's events of it.
    """
    if topic is not None and data is not None:
        raise ConfigError("give one of --topic and --data")
    if topic is not None:
        return _of_topic(bootstrap, topic, columns.features, span)
    if data is None:
        raise ConfigError("data: give a file, or the topic to learn from")
    return between(of_table(read_table(data), columns, freq, stem_of(data)), *span)


def _lengths(trained: RegisteredModel) -> dict[str, object]:
    card = trained.candidate.card
    assert isinstance(card, Card)
    return {"freq": card.input.freq, "seq_len": card.input.seq_len, "horizon": card.output.horizon}


def of_table(table: Table, columns: Columns, freq: str | None, stem: str) -> History:
    """A file's table as a history, with a line for whatever it leaves open; `stem` may name its series. Raises
    DataError."""
    source = measurements(table, columns, freq=freq, stem=stem)
    for note in source.notes:
        say(note)
    return from_frame(source.frame)


def _of_topic(bootstrap: str, topic: str, features: tuple[str, ...], span: tuple[int | None, int | None]) -> History:
    with closing(open_log(bootstrap)) as log:
        total = sum(end - start for start, end in log.bounds(topic).values())
        with progress(f"read {topic}", total) as report:
            since, until = span
            history = read_topic(
                log, topic, features, since=since, until=until, on_progress=lambda done, _: report(done)
            )
    if span != (None, None):
        say(f"{len(history.frame):,} events were written in that time; the topic has {total:,} records")
    for reason, count in history.invalid.items():
        say(f"{count:,} records are no events: {reason}")
    return history
