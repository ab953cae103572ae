"""`tidecast backtest`: a recipe judged on a past that it has not seen, beside what needs no learning."""

import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from deploy.console import progress, say
from deploy.pictures import picture_path, say_where
from deploy.settings.serve import window_config
from deploy.training.forecasting import TrainJob, in_words, read_history, shapes
from deploy.training.registration import watched
from model.evaluation.baselines import naive_scores
from model.evaluation.metrics import METRICS, ErrorScale, Metrics, Scores, best, error_scale, series_scale
from model.evaluation.splits import FAR, Cuts, chunks, held_out, split, targets
from model.evaluation.statistical import ORIGINS, name_of, statistical_scores
from model.plots import plot_backtest
from model.seasons import seasonal_lags, shortest_lag
from model.training.forecasting import FittedForecaster, fit, forecast
from model.windows import Rows, WindowData
from pipeline.datasets.history import History, before, infer_freq, windows
from pipeline.datasets.measurements import Columns
from pipeline.windows.grid import Grid, Ints
from tidecast.errors import ConfigError
from tidecast.freq import parse_duration

Protocol = Literal["rolling", "ett", "70-10-20"]
ETT_DAYS = (360, 120, 120)
"""Twelve months of 30 days to train on, four to validate on, four to test on."""
LISTED = 12
"""Most series that the table has a line for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestJob:
    """What to judge, and on which past."""

    train: TrainJob
    """What is trained, as `tidecast train` would."""
    protocol: Protocol = "rolling"
    test: str = "0.2"
    """For rolling: the end that is forecast, as a share, a number of steps, or a duration."""
    seeds: int = 1
    """Trainings, each from another seed."""
    statistical: bool = True
    """Whether AutoETS or MSTL is fitted beside it."""


@dataclass(frozen=True, slots=True)
class StatisticalComparison:
    """A statistical forecast of the first target on every k-th origin, and the first seed's model on the same."""

    name: str
    every: int
    theirs: Scores
    ours: Scores


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """What came of one past."""

    data: WindowData
    test: Rows
    """The windows that were forecast."""
    runs: list[tuple[FittedForecaster, Scores]]
    """A training and its scores for each seed."""
    naive: dict[str, Scores]
    beside: StatisticalComparison | None

    @property
    def overall(self) -> Metrics:
        """Each error, the seeds' mean."""
        errors = [scores.overall() for _, scores in self.runs]
        return {metric: mean(error[metric] for error in errors) for metric in METRICS}


def protocol_cuts(times: Ints, job: BacktestJob, freq: str | None) -> tuple[Cuts, int]:
    """The cuts of a protocol for a history's distinct times, and the time at which its past ends.

    Raises ConfigError for a history that is too short, or a test that is no part of it.
    """
    rows = len(times)
    if job.protocol == "ett":
        day = seasonal_lags(freq).get("day")
        if day is None:
            raise ConfigError(f"protocol: ett counts days, and steps of {freq} make none")
        train, validation, test = (days * day for days in ETT_DAYS)
        if rows < train + validation + test:
            raise ConfigError(f"protocol: ett needs {train + validation + test:,} steps, and there are {rows:,}")
    elif job.protocol == "70-10-20":
        train, test = int(0.7 * rows), int(0.2 * rows)
        validation = rows - train - test
    else:
        test = _test_rows(times, job.test, freq)
        validation = held_out(rows - test, job.train.config.validation, job.train.horizon or 0)
        train = rows - test - validation
    if min(train, validation, test) < 1:
        raise ConfigError(f"test: {rows:,} steps can't be cut into {train}, {validation} and {test}")
    end = train + validation + test
    return Cuts(int(times[train]), int(times[train + validation])), int(times[end]) if end < rows else FAR


def _test_rows(times: Ints, test: str, freq: str | None) -> int:
    try:
        number = float(test)
    except ValueError:
        try:
            step = Grid.parse(freq).milliseconds if freq else 0
            return int((times >= times[-1] + step - parse_duration(test)).sum())
        except ConfigError:
            raise ConfigError(f"test: {test!r} is no share such as 0.2, no number of steps, no duration") from None
    if not isfinite(number) or (number >= 1 and not number.is_integer()):
        raise ConfigError(f"test: {test!r} is no whole number of steps")
    return int(number) if number >= 1 else round(number * len(times))


def run_backtest(history: History, job: BacktestJob) -> BacktestResult:
    """Train on a history's beginning, and forecast from every origin of its end.

    Nothing is chosen by what comes after the cuts. Raises DataError for a history that is too short, ConfigError
    for a test that is no part of it.
    """
    times = np.unique(history.frame["ts"].to_numpy())
    freq = job.train.freq or infer_freq(before(history, int(times[len(times) // 2])).frame)
    cuts, end = protocol_cuts(times, job, freq)
    inputs, outputs = shapes(before(history, cuts.test), replace(job.train, freq=freq))
    data = windows(before(history, end), window_config(inputs))
    horizon, columns = outputs.horizon, [inputs.features.index(name) for name in outputs.targets]
    test = split(data, horizon, cuts).test
    if not len(test):
        raise ConfigError(f"test: no window has its {horizon} steps in the part that is forecast")
    say(f"{len(data):,} windows: {inputs.seq_len} steps back, {horizon} ahead; {len(test):,} are forecast to judge by")
    season = shortest_lag(freq)
    deviation = series_scale(data, columns, cuts.validation)
    by = error_scale(data, columns, cuts.validation, season, deviation)
    runs = []
    for seed in range(job.train.config.seed, job.train.config.seed + job.seeds):
        with watched(in_words) as on_step:
            fitted = fit(data, inputs, outputs, replace(job.train.config, seed=seed), job.train.name, on_step, cuts)
        runs.append((fitted, model_scores(fitted, data, test, by)))
    naive = naive_scores(data, test, horizon, columns, freq, by)
    return BacktestResult(data, test, runs, naive, beside(data, runs[0][0], test, by) if job.statistical else None)


def model_scores(fitted: FittedForecaster, data: WindowData, ends: Rows, by: ErrorScale) -> Scores:
    """A model's scores over the windows that end in these rows."""
    horizon, columns = fitted.card.output.horizon, fitted.card.target_columns
    scores = Scores(by, horizon)
    for part in chunks(ends):
        actual, observed = targets(data, part, horizon, columns)
        scores.add(data.series[part], forecast(fitted.model, data, part), actual, observed)
    return scores


def beside(data: WindowData, fitted: FittedForecaster, ends: Rows, by: ErrorScale) -> StatisticalComparison | None:
    """The statistical forecast beside a model's; None where statsforecast is not installed."""
    if find_spec("statsforecast") is None:
        say("no AutoETS or MSTL beside it: pip install 'tidecast[compare]' brings statsforecast")
        return None
    card, lags = fitted.card, seasonal_lags(fitted.card.input.freq)
    every, name = -(-len(ends) // ORIGINS), name_of(lags)
    some, by = ends[::every], ErrorScale(by.deviation[:, :1], by.naive[:, :1])
    with progress(f"{name} at every {every}th origin", len(some)) as report:
        theirs = statistical_scores(data, some, card.output.horizon, card.target_columns[0], lags, by, report)
    ours = Scores(by, card.output.horizon)
    actual, observed = targets(data, some, card.output.horizon, card.target_columns[:1])
    ours.add(data.series[some], forecast(fitted.model, data, some)[..., :1], actual, observed)
    return StatisticalComparison(name, every, theirs, ours)


def backtest(
    job: BacktestJob, topic: str | None, data: str | None, columns: Columns, bootstrap: str, plot: Path | None
) -> dict[str, object]:
    """`tidecast backtest`: the table on stdout, a picture, and all of it as data."""
    history = read_history(bootstrap, topic, data, columns, job.train.freq)
    began = time.monotonic()
    result = run_backtest(history, job)
    name = f"{job.train.name}-{result.runs[0][0].card.output.horizon}"
    picture = picture_path(plot, "backtests", name)
    plot_backtest(result.runs[0][0], result.data, result.test, _steps(result), picture)
    _show(result, job)
    say_where(picture)
    return _summary(result, job) | {"seconds": round(time.monotonic() - began, 1), "plot": str(picture)}


def _steps(result: BacktestResult) -> dict[str, list[float]]:
    """Everybody's squared error for each step ahead."""
    naive = {f"naive ({name})": scores.by_step()["mse"] for name, scores in result.naive.items()}
    return {"Tidecast": result.runs[0][1].by_step()["mse"], **naive}


def _show(result: BacktestResult, job: BacktestJob) -> None:
    card = result.runs[0][0].card
    title = f"{job.train.name}, {job.protocol}: {len(result.test):,} windows, {card.output.horizon} steps ahead"
    table = Table(title=title, title_justify="left", caption="mse, mae in z-scores of training", caption_justify="left")
    for heading in ("forecast", *METRICS):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "forecast" else "right")
    for name, errors in _lines(result).items():
        table.add_row(name, *(f"{errors[metric]:.4g}" for metric in METRICS))
    Console(highlight=False).print(table)


def _lines(result: BacktestResult) -> dict[str, Metrics]:
    """The table's lines: ours, the naive ones, those on every k-th origin, and ours for each series if they are few."""
    lines = {"Tidecast": result.overall} | {f"naive ({name})": each.overall() for name, each in result.naive.items()}
    if other := result.beside:
        note = f", every {other.every}th" if other.every > 1 else ""
        lines |= {f"{other.name}{note}": other.theirs.overall(), f"Tidecast{note} ": other.ours.overall()}
    by_series = result.runs[0][1].by_series(result.data.names)
    return lines | ({f"  {name}": errors for name, errors in by_series.items()} if 1 < len(by_series) <= LISTED else {})


def _summary(result: BacktestResult, job: BacktestJob) -> dict[str, object]:
    card, errors = result.runs[0][0].card, [scores.overall() for _, scores in result.runs]
    spread = {metric: stdev(error[metric] for error in errors) if len(errors) > 1 else 0.0 for metric in METRICS}
    naive = {name: scores.overall() for name, scores in result.naive.items()}
    found: dict[str, object] = {
        "protocol": job.protocol,
        "freq": card.input.freq,
        "seq_len": card.input.seq_len,
        "horizon": card.output.horizon,
        "windows": len(result.test),
        **result.overall,
        "spread": spread,
        "seeds": errors,
        "validation_mse": mean(fitted.card.metrics["validation_mse"] for fitted, _ in result.runs),
        "better_naive": best(naive),
        "baselines": naive,
        "by_step": result.runs[0][1].by_step(),
        "by_series": result.runs[0][1].by_series(result.data.names),
        "baselines_by_series": {name: scores.by_series(result.data.names) for name, scores in result.naive.items()},
    }
    if other := result.beside:
        same = {"every": other.every, other.name: other.theirs.overall(), "tidecast": other.ours.overall()}
        found["statistical"] = same
    return found
