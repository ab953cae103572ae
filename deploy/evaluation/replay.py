"""`tidecast replay`: a past forecast again, by any models from the same origins, and scored by what came of it.

It reads a topic or an archive, writes to no topic and joins no group.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from deploy.console import progress, say
from deploy.evaluation.comparison import WindowRows
from deploy.pictures import picture_path, say_where
from deploy.serving.model_loading import load_model
from deploy.serving.predictor import CHUNK, Predictor
from deploy.settings.serve import Device, window_config
from deploy.training.forecasting import read_history
from model.card import Card
from model.evaluation.baselines import seasonal_naive
from model.evaluation.metrics import METRICS, Scores, best, error_scale, series_scale, window_mse
from model.evaluation.splits import FAR, run_starts, scored, targets
from model.plots import plot_replay
from model.seasons import shortest_lag
from model.windows import Floats, Rows
from pipeline.datasets.history import History, windows
from pipeline.datasets.measurements import Columns
from pipeline.windows.sliding import SlidingWindows
from tidecast.errors import ConfigError
from tidecast.times import format_time

SEASONAL, LAST = "seasonal-naive", "last-value"
POINTS = 120
"""Points in time that the picture has."""
_WAITING = 8

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayJob:
    """What to replay, and by which models."""

    models: tuple[str, ...]
    """NAME/VERSION, NAME@ALIAS or a file.onnx; `seasonal-naive` (the shortest season) and `last-value` beside them."""
    since: int | None = None
    """No origin lies before it, epoch milliseconds; None: from the first on."""
    until: int | None = None
    """All origins lie before it."""
    device: Device = "auto"


@dataclass(frozen=True, slots=True)
class ReplayModel:
    """Who forecasts."""

    name: str
    forecast: Callable[[Rows], Floats]
    """From the rows that windows end in (N,) to forecasts (N,K,O)."""
    learned_until: int | None = None
    """The last time that it has learned from, epoch milliseconds; None for what learns nothing."""


@dataclass(slots=True)
class ReplayResult:
    """How somebody did."""

    scores: Scores
    ts: list[Rows] = field(default_factory=list)
    """The origins' times, part by part."""
    lost: list[Reals] = field(default_factory=list)
    """The mean squared error from each of them, in z-scores."""
    seconds: float = 0.0


class Replay:
    """A past, and the origins in it that all models can forecast from.

    Raises ConfigError for models that can't be compared, and where there is no such origin.
    """

    def __init__(self, history: History, predictors: Sequence[Predictor], job: ReplayJob) -> None:
        cards = [_card(each) for each in predictors]
        self._predictors, self._names = predictors, job.models
        self._each = [windows(history, window_config(card.input)) for card in cards]
        self.data, self.card = self._each[0], cards[0]
        self.horizon, self.columns = self.card.output.horizon, self.card.target_columns
        self.ends = self._origins(job)
        self._lag = shortest_lag(self.card.input.freq)
        self._scale = series_scale(self.data, self.columns, FAR)
        self._by = error_scale(self.data, self.columns, FAR, self._lag, self._scale)

    def _origins(self, job: ReplayJob) -> Rows:
        ends = reduce(np.intersect1d, (scored(each, self.horizon) for each in self._each))
        ts = self.data.ts[ends]
        since, until = (-FAR if job.since is None else job.since), (FAR if job.until is None else job.until)
        ends = ends[(ts >= since) & (ts < until)]
        if not len(ends):
            back = max(each.seq_len for each in self._each)
            known = (
                "" if not len(ts) else f"; they end from {format_time(int(ts.min()))} to {format_time(int(ts.max()))}"
            )
            raise ConfigError(
                f"from: no window of {back} steps, with the {self.horizon} after it known, ends in that time{known}"
            )
        return ends

    def replay_models(self) -> Iterator[ReplayModel]:
        """Who forecasts, in the order that was asked for."""
        known = zip(self._predictors, self._each, strict=True)
        for name in self._names:
            if name in (SEASONAL, LAST):
                yield ReplayModel(name, self._naive(self._lag if name == SEASONAL else 1))
            else:
                predictor, data = next(known)
                yield ReplayModel(predictor.label, _by_model(predictor, data), _card(predictor).trained_until)

    def _naive(self, lag: int) -> Callable[[Rows], Floats]:
        values = self.data.values[:, self.columns]
        return lambda ends: seasonal_naive(values, ends, run_starts(self.data, ends), self.horizon, lag)

    def run(self, replay_model: ReplayModel, report: Callable[[int], None]) -> ReplayResult:
        """Everything forecast by one of them, on all cores, and scored; `report` is told of each part's size."""
        result, began = ReplayResult(Scores(self._by, self.horizon)), time.monotonic()
        parts = np.split(self.ends, range(CHUNK, len(self.ends), CHUNK))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part, made in _ahead(pool, replay_model.forecast, parts):
                series = self.data.series[part]
                actual, observed = targets(self.data, part, self.horizon, self.columns)
                result.scores.add(series, made, actual, observed)
                result.lost.append(window_mse(made, actual, observed, self._scale[series]))
                result.ts.append(self.data.ts[part])
                report(len(part))
        result.seconds = time.monotonic() - began
        return result


def _card(predictor: Predictor) -> Card:
    if not isinstance(predictor.card, Card):
        raise ConfigError(f"{predictor.label} makes no forecasts")
    return predictor.card


def _by_model(predictor: Predictor, data: SlidingWindows) -> Callable[[Rows], Floats]:
    return lambda ends: next(predictor.predict(WindowRows(data, ends)))


def _ahead(
    pool: ThreadPoolExecutor, forecast: Callable[[Rows], Floats], parts: Iterable[Rows]
) -> Iterator[tuple[Rows, Floats]]:
    """Each part with its forecasts, in order; a few parts are worked on before they are asked for."""
    waiting: deque[tuple[Rows, Future[Floats]]] = deque()
    for part in parts:
        waiting.append((part, pool.submit(forecast, part)))
        if len(waiting) > _WAITING:
            first, made = waiting.popleft()
            yield first, made.result()
    for first, made in waiting:
        yield first, made.result()


def alike(predictors: Sequence[Predictor]) -> None:
    """Raises ConfigError unless all forecast the same from windows of one kind; look-backs may differ."""
    if not predictors:
        raise ConfigError(f"model: give a registered version or a file; {SEASONAL} and {LAST} go beside it")
    first, *others = predictors
    for other in others:
        for of in (_windows, _forecasts):
            if (theirs := of(_card(other))) != (ours := of(_card(first))):
                raise ConfigError(f"{other.label} and {first.label} can't be compared: {theirs}, and {ours}")


def _windows(card: Card) -> str:
    takes = card.input
    grid = f"freq {takes.freq}, max_gap {takes.max_gap}, aggregate {takes.aggregate}, lateness {takes.lateness}"
    return f"windows of {', '.join(takes.features)}, {grid}"


def _forecasts(card: Card) -> str:
    return f"{card.output.horizon} steps of {', '.join(card.output.targets)}"


def replay(
    job: ReplayJob,
    topic: str | None,
    data: str | None,
    columns: Columns,
    bootstrap: str,
    tracking_uri: str,
    plot: Path | None,
) -> dict[str, object]:
    """`tidecast replay`: the table on stdout, a picture, and the same as data."""
    predictors = [load_model(name, tracking_uri, job.device) for name in job.models if name not in (SEASONAL, LAST)]
    alike(predictors)
    inputs = _card(predictors[0]).input
    columns = Columns(series=columns.series, ts=columns.ts, value=columns.value, features=inputs.features)
    past = Replay(read_history(bootstrap, topic, data, columns, inputs.freq), predictors, job)
    origins = past.data.ts[past.ends]
    begin, end = int(origins.min()), int(origins.max())
    say(f"{len(past.ends):,} origins from {format_time(begin)} to {format_time(end)}, {past.horizon} steps ahead")
    done = _all(past, job)
    for name, (replay_model, _) in done.items():
        if replay_model.learned_until is not None and replay_model.learned_until > begin:
            until = format_time(replay_model.learned_until)
            say(f"{name} has learned from this time, up to {until}: there it knew what would come")
    found = {name: _summary(replay_model, result, len(past.ends)) for name, (replay_model, result) in done.items()}
    _show(found, f"{len(past.ends):,} windows, {past.horizon} steps ahead")
    picture = picture_path(plot, "replays", topic or Path(str(data)).stem)
    _draw({name: result for name, (_, result) in done.items()}, (begin, end), picture)
    say_where(picture)
    winner = best({name: result.scores.overall() for name, (_, result) in done.items()})
    return {"from": begin, "to": end, "windows": len(past.ends), "best": winner, "models": found, "plot": str(picture)}


def _all(past: Replay, job: ReplayJob) -> dict[str, tuple[ReplayModel, ReplayResult]]:
    done: dict[str, tuple[ReplayModel, ReplayResult]] = {}
    with progress("replay", len(past.ends) * len(job.models)) as report:
        so_far = 0
        for replay_model in past.replay_models():

            def tell(more: int, name: str = replay_model.name) -> None:
                nonlocal so_far
                so_far += more
                report(so_far, name)

            done[replay_model.name] = replay_model, past.run(replay_model, tell)
    return done


def _summary(replay_model: ReplayModel, result: ReplayResult, count: int) -> dict[str, object]:
    overall = result.scores.overall()
    facts = {"learned_until": replay_model.learned_until, "windows_per_s": round(count / max(result.seconds, 1e-9), 1)}
    return {**overall, "by_step": result.scores.by_step(), **facts}


def _show(found: dict[str, dict[str, object]], title: str) -> None:
    table = Table(title=title, title_justify="left", caption="mse, mae in z-scores", caption_justify="left")
    for heading in ("model", *METRICS, "windows/s"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "model" else "right")
    for name, facts in found.items():
        table.add_row(name, *(f"{facts[metric]:.4g}" for metric in METRICS), f"{facts['windows_per_s']:,.0f}")
    Console(highlight=False).print(table)


def _draw(done: dict[str, ReplayResult], span: tuple[int, int], path: Path) -> None:
    """Errors over time, each the mean of what was forecast in a part of it."""
    edges = np.linspace(span[0], span[1] + 1, POINTS + 1)
    over_time = {}
    for name, result in done.items():
        ts, lost = np.concatenate(result.ts), np.concatenate(result.lost)
        known = np.isfinite(lost)
        place = np.searchsorted(edges, ts[known], side="right") - 1
        count = np.bincount(place, minlength=POINTS)
        total = np.bincount(place, lost[known], POINTS)
        over_time[name] = np.divide(total, count, out=np.full(POINTS, np.nan), where=count > 0)
    by_step = {name: result.scores.by_step()["mse"] for name, result in done.items()}
    plot_replay(edges[:-1].astype(np.int64), over_time, by_step, "replay", path)
