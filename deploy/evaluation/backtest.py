"""`tidecast backtest`: a training evaluated on held-out data, compared with naive and statistical forecasts."""

import logging
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import isfinite
from statistics import mean, stdev
from typing import Literal

import numpy as np
from rich.table import Table

from deploy.console import print_table, progress
from deploy.data import DataSource
from deploy.evaluation.coverage import IntervalComparison, naive_intervals
from deploy.pictures import Picture
from deploy.settings.serve import window_config
from deploy.training.forecasting import format_epoch, odd_series, say_odd_series, seasons_in_words
from deploy.training.jobs import ALIGNED, TrainJob
from deploy.training.look_back import all_notes, infer_grid, infer_specs
from deploy.training.registration import training_progress
from model.evaluation.baselines import naive_scores
from model.evaluation.intervals import IntervalScores
from model.evaluation.metrics import (
    METRICS,
    METRICS_IN_WORDS,
    ErrorScale,
    Metrics,
    Scores,
    best,
    error_scale,
    series_scale,
)
from model.evaluation.splits import FAR, Cuts, chunks, held_out, split, targets
from model.evaluation.statistical import ORIGINS, name_of, statistical_scores
from model.plots.forecasts import plot_backtest
from model.seasons import seasonal_lags
from model.training.forecasting import FittedForecaster, fit, forecast
from model.windows import Rows, WindowData
from pipeline.datasets.history import History, before, windows
from pipeline.windows.grid import Ints
from pipeline.windows.steps import Grid
from tidecast.errors import ConfigError
from tidecast.freq import parse_duration

logger = logging.getLogger(__name__)

Protocol = Literal["rolling", "ett", "70-10-20"]
ETT_DAYS = (360, 120, 120)
"""Twelve months of 30 days to train on, four to validate on, four to test on."""
MAX_LISTED_SERIES = 12
"""Most series for which the table has a row each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestJob:
    """A training to evaluate, and what is held out for it."""

    train: TrainJob
    """The training, as `tidecast train` would run it."""
    protocol: Protocol = "rolling"
    test: str = "0.2"
    """The test part of rolling, at the end: a share, a number of steps, or a duration."""
    seeds: int = 1
    """Trainings with different seeds."""
    statistical: bool = True
    """Whether to compare with AutoETS or MSTL."""


@dataclass(frozen=True, slots=True)
class StatisticalComparison:
    """A statistical forecast of the first target at every k-th origin, and the first seed's model at the same ones."""

    name: str
    every: int
    scores: Scores
    model_scores: Scores


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """The forecasts of one history, scored."""

    data: WindowData
    test: Rows
    """The last rows of the windows that were forecast."""
    runs: list[tuple[FittedForecaster, Scores]]
    """A training and its scores for each seed."""
    naive: dict[str, Scores]
    statistical: StatisticalComparison | None
    intervals: IntervalComparison

    @property
    def overall(self) -> Metrics:
        """Each error, averaged over seeds."""
        errors = [scores.overall() for _, scores in self.runs]
        return {metric: mean(error[metric] for error in errors) for metric in METRICS}

    @property
    def worst(self) -> dict[str, float]:
        """The few series that make up most of the first seed's squared error, with their shares."""
        return self.runs[0][1].worst(self.data.names)


def protocol_cuts(times: Ints, job: BacktestJob, freq: str | None) -> tuple[Cuts, int]:
    """The cuts of a protocol for a history's distinct times, and the time at which its test part ends.

    Raises ConfigError for a history that is too short, or a test part that does not fit into it.
    """
    rows = len(times)
    train, validation, test = _parts(times, job, freq)
    if min(train, validation, test) < 1:
        raise ConfigError(f"test: {rows:,} steps can't be cut into {train}, {validation} and {test}")
    end = train + validation + test
    return Cuts(int(times[train]), int(times[train + validation])), int(times[end]) if end < rows else FAR


def _parts(times: Ints, job: BacktestJob, freq: str | None) -> tuple[int, int, int]:
    """How many of the times train, validate and test."""
    rows = len(times)
    if job.protocol == "ett":
        return _ett_parts(rows, freq)
    if job.protocol == "70-10-20":
        train, test = int(0.7 * rows), int(0.2 * rows)
        return train, rows - train - test, test
    test = _test_rows(times, job.test, freq)
    validation = held_out(rows - test, job.train.config.validation, job.train.horizon or 0)
    return rows - test - validation, validation, test


def _ett_parts(rows: int, freq: str | None) -> tuple[int, int, int]:
    day = seasonal_lags(freq).get("day")
    if day is None:
        raise ConfigError(f"protocol: ett counts days, and steps of {freq} do not divide one")
    train, validation, test = (days * day for days in ETT_DAYS)
    if rows < train + validation + test:
        raise ConfigError(f"protocol: ett needs {train + validation + test:,} steps, and there are {rows:,}")
    return train, validation, test


def _test_rows(times: Ints, test: str, freq: str | None) -> int:
    try:
        number = float(test)
    except ValueError:
        try:
            step = Grid.parse(freq).milliseconds if freq else 0
            return int((times >= times[-1] + step - parse_duration(test)).sum())
        except ConfigError:
            raise ConfigError(f"test: {test!r} is not a share such as 0.2, a number of steps, or a duration") from None
    if not isfinite(number) or (number >= 1 and not number.is_integer()):
        raise ConfigError(f"test: {test!r} is not a whole number of steps")
    return int(number) if number >= 1 else round(number * len(times))


def run_backtest(history: History, job: BacktestJob) -> BacktestResult:
    """Train on a history's beginning, and forecast from every origin of its end.

    No choice depends on data after the cuts. Raises DataError for a history that is too short, ConfigError for a test
    part that does not fit into it.
    """
    times = np.unique(history.frame["ts"].to_numpy())
    freq, offset = infer_grid(before(history, int(times[len(times) // 2])), job.train)
    if freq is not None:  # times of one step, as of several series with jitter, count once
        _, first = np.unique(Grid.parse(freq, job.train.aggregate is not None, offset).index(times), return_index=True)
        times = times[first]
    cuts, end = protocol_cuts(times, job, freq)
    inputs, outputs = infer_specs(before(history, cuts.test), replace(job.train, freq=freq, offset=offset or ALIGNED))
    data = windows(before(history, end), window_config(inputs))
    horizon, columns = outputs.horizon, [inputs.features.index(name) for name in outputs.targets]
    test = split(data, horizon, cuts).test
    if not len(test):
        raise ConfigError(f"test: no window has its {horizon} steps in the test part")
    logger.info(f"{len(data):,} windows: {inputs.seq_len} steps back, {horizon} ahead; {len(test):,} are tested on")
    logger.info(seasons_in_words(inputs))
    deviation = series_scale(data, columns, cuts.validation)
    scale = error_scale(data, columns, cuts.validation, inputs.season_lag, deviation)
    runs, intervals = [], []
    for seed in range(job.train.config.seed, job.train.config.seed + job.seeds):
        with training_progress(format_epoch) as on_step:
            fitted = fit(data, inputs, outputs, replace(job.train.config, seed=seed), job.train.name, on_step, cuts)
        scores, of_intervals = model_scores(fitted, data, test, scale)
        runs.append((fitted, scores))
        intervals.append(of_intervals)
    naive = naive_scores(data, test, horizon, columns, inputs.lags, scale)
    statistical = compare_statistical(data, runs[0][0], test, scale) if job.statistical else None
    comparison = IntervalComparison(intervals, *naive_intervals(runs[0][0], data, test, deviation))
    return BacktestResult(data, test, runs, naive, statistical, comparison)


def model_scores(
    fitted: FittedForecaster, data: WindowData, ends: Rows, scale: ErrorScale
) -> tuple[Scores, IntervalScores]:
    """A model's scores over the windows that end in these rows, and those of its intervals."""
    horizon, columns = fitted.card.output.horizon, fitted.card.target_columns
    assert fitted.calibration is not None
    scores, intervals = Scores(scale, horizon), IntervalScores(fitted.calibration, fitted.card, scale.deviation)
    for part in chunks(ends):
        actual, observed = targets(data, part, horizon, columns)
        predicted = forecast(fitted.model, data, part)
        scores.add(data.series[part], predicted, actual, observed)
        intervals.add(data, part, predicted, actual, observed)
    return scores, intervals


def compare_statistical(
    data: WindowData, fitted: FittedForecaster, ends: Rows, scale: ErrorScale
) -> StatisticalComparison | None:
    """AutoETS or MSTL compared with a model; None if statsforecast is not installed."""
    if find_spec("statsforecast") is None:
        logger.info("no comparison with AutoETS or MSTL: pip install 'tidecast[compare]' installs statsforecast")
        return None
    card, lags = fitted.card, fitted.card.input.lags
    every, name = -(-len(ends) // ORIGINS), name_of(lags)
    sampled, scale = ends[::every], ErrorScale(scale.deviation[:, :1], scale.naive[:, :1])
    with progress(f"{name} at every {every}th origin", len(sampled)) as report:
        scores = statistical_scores(data, sampled, card.output.horizon, card.target_columns[0], lags, scale, report)
    own_scores = Scores(scale, card.output.horizon)
    actual, observed = targets(data, sampled, card.output.horizon, card.target_columns[:1])
    own_scores.add(data.series[sampled], forecast(fitted.model, data, sampled)[..., :1], actual, observed)
    return StatisticalComparison(name, every, scores, own_scores)


def report_backtest(job: BacktestJob, source: DataSource, picture: Picture) -> dict[str, object]:
    """`tidecast backtest`: a table on stdout, a plot, and all of it as data."""
    history = source.history(job.train.freq)
    started = time.monotonic()
    result = run_backtest(history, job)
    fitted, _ = result.runs[0]
    _print_table(result, job)
    errors, name = _errors_by_step(result), f"{job.train.name}-{fitted.card.output.horizon}"
    plot = picture.save(name, lambda path: plot_backtest(fitted, result.data, result.test, errors, path))
    seconds = round(time.monotonic() - started, 1)
    return _summary(result, job) | {"notes": all_notes(history, fitted.card.input), "seconds": seconds, "plot": plot}


def _errors_by_step(result: BacktestResult) -> dict[str, list[float]]:
    """The mse of each forecast for each step ahead."""
    naive = {f"naive ({name})": scores.by_step()["mse"] for name, scores in result.naive.items()}
    return {"Tidecast": result.runs[0][1].by_step()["mse"], **naive}


def _print_table(result: BacktestResult, job: BacktestJob) -> None:
    card = result.runs[0][0].card
    title = f"{job.train.name}, {job.protocol}: {len(result.test):,} windows, {card.output.horizon} steps ahead"
    table = Table(title=title, title_justify="left", caption=METRICS_IN_WORDS, caption_justify="left")
    for heading in ("forecast", *METRICS):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "forecast" else "right")
    for name, errors in _table_rows(result).items():
        table.add_row(name, *(f"{errors[metric]:.4g}" for metric in METRICS))
    print_table(table)
    print_table(result.intervals.table())
    say_odd_series(result.runs[0][0], result.worst)


def _table_rows(result: BacktestResult) -> dict[str, Metrics]:
    """The model's errors, the naive ones, those at every k-th origin, and the model's for each of a few series."""
    rows = {"Tidecast": result.overall} | {f"naive ({name})": each.overall() for name, each in result.naive.items()}
    if other := result.statistical:
        note = f", every {other.every}th" if other.every > 1 else ""
        rows |= {f"{other.name}{note}": other.scores.overall(), f"Tidecast{note} ": other.model_scores.overall()}
    by_series = result.runs[0][1].by_series(result.data.names)
    if 1 < len(by_series) <= MAX_LISTED_SERIES:
        rows |= {f"  {name}": errors for name, errors in by_series.items()}
    return rows


def _summary(result: BacktestResult, job: BacktestJob) -> dict[str, object]:
    card, errors = result.runs[0][0].card, [scores.overall() for _, scores in result.runs]
    spread = {metric: stdev(error[metric] for error in errors) if len(errors) > 1 else 0.0 for metric in METRICS}
    naive = {name: scores.overall() for name, scores in result.naive.items()}
    summary: dict[str, object] = {
        "protocol": job.protocol,
        "freq": card.input.freq,
        "offset": card.input.offset,
        "seq_len": card.input.seq_len,
        "horizon": card.output.horizon,
        "windows": len(result.test),
        **result.overall,
        **odd_series(result.runs[0][0], result.worst),
        "spread": spread,
        "seeds": errors,
        "validation_mse": mean(fitted.card.metrics["validation_mse"] for fitted, _ in result.runs),
        "better_naive": best(naive),
        "baselines": naive,
        "by_step": result.runs[0][1].by_step(),
        "by_series": result.runs[0][1].by_series(result.data.names),
        **result.intervals.summary(),
        "baselines_by_series": {name: scores.by_series(result.data.names) for name, scores in result.naive.items()},
    }
    if other := result.statistical:
        errors_of = {other.name: other.scores.overall(), "tidecast": other.model_scores.overall()}
        summary["statistical"] = {"every": other.every, **errors_of}
    return summary
