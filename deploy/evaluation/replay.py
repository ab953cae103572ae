"""`tidecast replay`: a history forecast by several models from the same origins, and scored by the actual values.

It reads a topic or a file, writes to no topic and joins no group.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from deploy.console import print_table, progress
from deploy.data import DataSource
from deploy.evaluation.comparison import WindowRows
from deploy.evaluation.replay_intervals import INTERVAL_SCORES, INTERVALS_IN_WORDS, ReplayIntervals
from deploy.models.loading import load_model
from deploy.models.predictor import CHUNK, Predictor
from deploy.pictures import Picture
from deploy.settings.serve import window_config
from deploy.settings.values import Device, checked_coverage
from model.card import Card
from model.evaluation.baselines import seasonal_naive
from model.evaluation.metrics import METRICS, METRICS_IN_WORDS, Scores, best, error_scale, series_scale, window_mse
from model.evaluation.splits import FAR, complete_ends, run_starts, targets
from model.plots.comparisons import plot_replay
from model.windows import Floats, Rows
from pipeline.datasets.history import History, windows
from pipeline.windows.sliding import SlidingWindows
from tidecast.errors import ConfigError
from tidecast.times import format_time

logger = logging.getLogger(__name__)

SEASONAL, LAST = "seasonal-naive", "last-value"
POINTS = 120
"""Points in time that the plot has."""
_MAX_QUEUED = 8

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayJob:
    """Which models to replay, and on which origins. Raises ConfigError."""

    models: tuple[str, ...]
    """NAME/VERSION, NAME@ALIAS or a file.onnx; also `seasonal-naive` (the first season) and `last-value`."""
    since: int | None = None
    """The first origin's time, epoch milliseconds; None: all from the beginning."""
    until: int | None = None
    """The end of the origins, epoch milliseconds, exclusive; None: all to the end."""
    device: Device = "auto"
    coverage: float | None = None
    """That of the intervals which a service would have given; None leaves them out."""

    def __post_init__(self) -> None:
        checked_coverage(self.coverage)


@dataclass(frozen=True, slots=True)
class ReplayModel:
    """A model that forecasts in a replay."""

    name: str
    forecast: Callable[[Rows], Floats]
    """From the rows that windows end in (N,) to forecasts (N,K,O)."""
    trained_until: int | None = None
    """The last time that it was trained on, epoch milliseconds; None for a naive forecast."""


@dataclass(slots=True)
class ReplayResult:
    """A model's scores in a replay."""

    scores: Scores
    ts: list[Rows] = field(default_factory=list)
    """The origins' times, part by part."""
    losses: list[Reals] = field(default_factory=list)
    """The mean squared error from each of them, in z-scores."""
    seconds: float = 0.0
    intervals: dict[str, Any] = field(default_factory=dict)
    """Coverage, mean width and Winkler score of the intervals, overall and by scored step."""


class Replay:
    """A history, and the origins in it that all models can forecast from.

    Raises ConfigError if there is no such origin.
    """

    def __init__(self, history: History, predictors: Sequence[Predictor], job: ReplayJob) -> None:
        cards = [_card(each) for each in predictors]
        self._predictors, self._names, self._coverage = predictors, job.models, job.coverage
        self._each = [windows(history, window_config(card.input)) for card in cards]
        self.data, self.card = self._each[0], cards[0]
        self.horizon, self.columns = self.card.output.horizon, self.card.target_columns
        self.ends = self._origins(job)
        self._lag = self.card.input.season_lag
        self._scale = series_scale(self.data, self.columns, FAR)
        self._error_scale = error_scale(self.data, self.columns, FAR, self._lag, self._scale)

    def _origins(self, job: ReplayJob) -> Rows:
        ends = reduce(np.intersect1d, (complete_ends(each, self.horizon) for each in self._each))
        ts = self.data.ts[ends]
        since, until = (-FAR if job.since is None else job.since), (FAR if job.until is None else job.until)
        ends = ends[(ts >= since) & (ts < until)]
        if not len(ends):
            back = max(each.seq_len for each in self._each)
            span = f"; they end from {format_time(int(ts.min()))} to {format_time(int(ts.max()))}" if len(ts) else ""
            raise ConfigError(
                f"from: no window of {back} steps, with the {self.horizon} after it known, ends in that time{span}"
            )
        return ends

    def replay_models(self) -> Iterator[ReplayModel]:
        """The models, in the order of the job."""
        loaded = zip(self._predictors, self._each, strict=True)
        for name in self._names:
            if name in (SEASONAL, LAST):
                yield ReplayModel(name, self._naive(self._lag if name == SEASONAL else 1))
            else:
                predictor, data = next(loaded)
                yield ReplayModel(predictor.label, _by_model(predictor, data), _card(predictor).trained_until)

    def _naive(self, lag: int) -> Callable[[Rows], Floats]:
        values = self.data.values[:, self.columns]
        return lambda ends: seasonal_naive(values, ends, run_starts(self.data, ends), self.horizon, lag)

    def run(self, replay_model: ReplayModel, report: Callable[[int], None]) -> ReplayResult:
        """Forecast from all origins by one model, on all cores, and score it; `report` gets each part's size."""
        result, started = ReplayResult(Scores(self._error_scale, self.horizon)), time.monotonic()
        tracker = ReplayIntervals(self.data, self.card, self._coverage) if self._coverage else None
        parts = np.split(self.ends, range(CHUNK, len(self.ends), CHUNK))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part, forecasts in _prefetch(pool, replay_model.forecast, parts):
                series = self.data.series[part]
                actual, observed = targets(self.data, part, self.horizon, self.columns)
                result.scores.add(series, forecasts, actual, observed)
                result.losses.append(window_mse(forecasts, actual, observed, self._scale[series]))
                result.ts.append(self.data.ts[part])
                if tracker:
                    tracker.add(part, forecasts)
                report(len(part))
        result.seconds = time.monotonic() - started
        result.intervals = tracker.scores() if tracker else {}
        return result


def _card(predictor: Predictor) -> Card:
    if not isinstance(predictor.card, Card):
        raise ConfigError(f"{predictor.label} is not a forecaster")
    return predictor.card


def _by_model(predictor: Predictor, data: SlidingWindows) -> Callable[[Rows], Floats]:
    return lambda ends: next(predictor.predict(WindowRows(data, ends)))


def _prefetch(
    pool: ThreadPoolExecutor, forecast: Callable[[Rows], Floats], parts: Iterable[Rows]
) -> Iterator[tuple[Rows, Floats]]:
    """Each part with its forecasts, in order; a few parts are computed in advance."""
    queued: deque[tuple[Rows, Future[Floats]]] = deque()
    for part in parts:
        queued.append((part, pool.submit(forecast, part)))
        if len(queued) > _MAX_QUEUED:
            first, forecasts = queued.popleft()
            yield first, forecasts.result()
    for first, forecasts in queued:
        yield first, forecasts.result()


def check_comparable(predictors: Sequence[Predictor]) -> None:
    """Raises ConfigError unless all have the same targets, horizon and windows; look-backs may differ."""
    if not predictors:
        raise ConfigError(f"model: give a registered version or a file; {SEASONAL} and {LAST} are compared with it")
    first, *others = predictors
    for other in others:
        for describe in (_describe_windows, _describe_forecasts):
            if (theirs := describe(_card(other))) != (ours := describe(_card(first))):
                raise ConfigError(f"{other.label} and {first.label} can't be compared: {theirs}, and {ours}")


def _describe_windows(card: Card) -> str:
    config = asdict(window_config(card.input))
    features, _ = config.pop("features"), config.pop("seq_len")
    return f"windows of {', '.join(features)}, " + ", ".join(f"{name} {value}" for name, value in config.items())


def _describe_forecasts(card: Card) -> str:
    return f"{card.output.horizon} steps of {', '.join(card.output.targets)}"


def report_replay(job: ReplayJob, source: DataSource, tracking_uri: str, picture: Picture) -> dict[str, object]:
    """`tidecast replay`: a table on stdout, a plot, and the same as data."""
    predictors = [load_model(name, tracking_uri, job.device) for name in job.models if name not in (SEASONAL, LAST)]
    check_comparable(predictors)
    inputs = _card(predictors[0]).input
    source = source.with_features(inputs.features, aggregated=inputs.aggregate is not None)
    history = source.history(inputs.freq)
    replay = Replay(history, predictors, job)
    origins = replay.data.ts[replay.ends]
    first, last = int(origins.min()), int(origins.max())
    logger.info(
        f"{len(origins):,} origins from {format_time(first)} to {format_time(last)}, {replay.horizon} steps ahead"
    )
    results = _run_all(replay, job)
    summaries = {model.name: _summary(model, result, len(origins)) for model, result in results}
    for model, _ in results:
        if model.trained_until is not None and model.trained_until > first:
            until = format_time(model.trained_until)
            logger.info(f"{model.name} was trained on data up to {until}: until then its errors are in-sample")
    asked = "" if job.coverage is None else f", intervals of {100 * job.coverage:g} %"
    _print_table(summaries, f"{len(origins):,} windows, {replay.horizon} steps ahead{asked}")
    by_name = {model.name: result for model, result in results}
    title = f"{source.name}: {len(origins):,} forecasts of {replay.horizon} steps, by each model"
    plot = picture.save(source.name, lambda path: _draw(by_name, (first, last), inputs.freq, title, path))
    winner = best({name: result.scores.overall() for name, result in by_name.items()})
    summary = {"from": first, "to": last, "windows": len(origins), "coverage": job.coverage, "best": winner}
    return summary | {"models": summaries, "notes": history.notes, "plot": plot}


def _run_all(replay: Replay, job: ReplayJob) -> list[tuple[ReplayModel, ReplayResult]]:
    """Each model with its result, as one progress."""
    results: list[tuple[ReplayModel, ReplayResult]] = []
    done = 0
    with progress("replay", len(replay.ends) * len(job.models)) as report:
        for model in replay.replay_models():

            def add(count: int, name: str = model.name) -> None:
                nonlocal done
                done += count
                report(done, name)

            results.append((model, replay.run(model, add)))
    return results


def _summary(model: ReplayModel, result: ReplayResult, count: int) -> dict[str, object]:
    overall = result.scores.overall()
    facts = {"learned_until": model.trained_until, "windows_per_s": round(count / max(result.seconds, 1e-9), 1)}
    return {**overall, "by_step": result.scores.by_step(), **result.intervals, **facts}


def _print_table(summaries: dict[str, dict[str, object]], title: str) -> None:
    intervals = {name: how for name, how in INTERVAL_SCORES.items() if all(name in each for each in summaries.values())}
    legend = f"{METRICS_IN_WORDS}; {INTERVALS_IN_WORDS}" if intervals else METRICS_IN_WORDS
    table = Table(title=title, title_justify="left", caption=legend, caption_justify="left")
    measured = dict.fromkeys(METRICS, ".4g") | intervals
    for heading in ("model", *measured, "windows/s"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "model" else "right")
    for name, facts in summaries.items():
        table.add_row(
            name, *(format(facts[metric], how) for metric, how in measured.items()), f"{facts['windows_per_s']:,.0f}"
        )
    print_table(table)


def _draw(results: dict[str, ReplayResult], span: tuple[int, int], freq: str | None, title: str, path: Path) -> None:
    """Errors over time, each the mean over a part of the origins."""
    edges = np.linspace(span[0], span[1] + 1, POINTS + 1)
    over_time = {}
    for name, result in results.items():
        ts, losses = np.concatenate(result.ts), np.concatenate(result.losses)
        scored = np.isfinite(losses)
        place = np.searchsorted(edges, ts[scored], side="right") - 1
        count = np.bincount(place, minlength=POINTS)
        total = np.bincount(place, losses[scored], POINTS)
        over_time[name] = np.divide(total, count, out=np.full(POINTS, np.nan), where=count > 0)
    by_step = {name: result.scores.by_step()["mse"] for name, result in results.items()}
    naive = [name for name in results if name in (SEASONAL, LAST)]
    plot_replay(edges[:-1].astype(np.int64), over_time, by_step, naive, freq, title, path)
