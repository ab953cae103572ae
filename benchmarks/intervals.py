"""Intervals on real errors: coverage, mean width, Winkler score and worst week, beside two other kinds of intervals.

    python benchmarks/intervals.py elec2.csv nyc_taxi.csv taylor.csv pedestrian.csv          [--keep FOLDER]

A file with columns of forecasts beside `y` (elec2) is taken one step ahead, from row 300. On any other a model learns
from the first half of each series, a day ahead, and its forecasts of the rest come step by step, errors as late as they
do live. The others are the quantiles of the last 336 errors, of the same forecasts and of the seasonal naive; all are
scored once those are complete. `--keep` keeps the forecasts of one run for the next.
"""

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from deploy.forecaster import Forecaster
from deploy.settings.serve import window_config
from deploy.training.jobs import TrainJob
from model.online.intervals import Intervals
from model.online.steps import scored_steps
from model.seasons import seasonal_lags
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import forecast
from pipeline.datasets.history import History, before, from_frame, windows
from pipeline.datasets.measurements import read_file

WINDOW = 336
"""Errors of a rolling window."""
JUNE_2000 = 960_163_200_000
"""When Taylor's series begins, a Monday."""
HEAD = f"{'':34}covered    width  Winkler  worst week   window: covered, Winkler, worst week    naive: Winkler"
Floats = npt.NDArray[np.float64]


class Errors(NamedTuple):
    """What one series' forecasts missed, by the step that was forecast: T steps, H scored steps ahead."""

    name: str
    steps: tuple[int, ...]
    season: int
    week: int
    """Steps of a week."""
    error: Floats
    """(T,H): actual - forecast."""
    naive: Floats
    """(T,H): the seasonal naive's."""
    number: npt.NDArray[np.int64]
    """(T,): the number of each step."""
    start: int
    """The first step that the model did not learn from."""
    scored: int
    """The first step, from `start`, of those that count."""


def one_step_ahead(path: Path) -> Iterator[Errors]:
    """The columns of forecasts in a file of half-hours."""
    table = pl.read_csv(path)
    for name in table.columns[2:]:
        error = (table["y"] - table[name]).to_numpy()[:, None]
        yield Errors(f"{path.stem} {name}", (1,), 48, 336, error, error, np.arange(len(error)), 20, 280)


def table_of(path: Path) -> tuple[pl.DataFrame, str]:
    """A file's series, and the spacing of its steps."""
    if path.stem == "taylor":  # half-hours without times
        values = pl.read_csv(path)["Y"].cast(pl.Float64)
        return pl.DataFrame(
            {"series": path.stem, "ts": JUNE_2000 + 1_800_000 * np.arange(len(values)), "value": values}
        ), "30m"
    if path.stem == "pedestrian":  # hours, with times of several kinds
        table = pl.read_csv(path, try_parse_dates=True)
        ts, value = table["Date_Time"].dt.epoch("ms"), table["Count"].cast(pl.Float64)
        return pl.DataFrame({"series": table["Sensor"], "ts": ts, "value": value}).sort("ts"), "1h"
    return read_file(str(path)).frame, "30m"


def a_day_ahead(path: Path, budget: float, keep: Path | None) -> Iterator[Errors]:
    """A model's forecasts of the second half."""
    frame, freq = table_of(path)
    lags, cut, history = seasonal_lags(freq), middle(frame), from_frame(frame)
    steps = scored_steps(lags["day"])
    kept = None if keep is None else keep / f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.npz"
    if kept is not None and kept.exists():
        arrays = np.load(kept)
        values, step, series, observed, ahead = (arrays[f"arr_{place}"] for place in range(5))
        names, ts = tuple(arrays["names"]), arrays["ts"]
    else:
        fitted = fitted_before(history, cut, path.stem, freq, budget).fitted
        data = windows(history, window_config(fitted.card.input))
        values, step, series, observed = data.values[:, 0], data.step, data.series, data.observed[:, 0]
        names, ts = data.names, data.ts
        ahead = np.full((len(values), len(steps)), np.nan)
        for ends in np.array_split(data.ends, 1 + len(data.ends) // 2048):
            ahead[ends] = forecast(fitted.model, data, ends)[:, np.array(steps) - 1, 0]
        if kept is not None:
            np.savez(kept, values, step, series, observed, ahead, names=np.array(names), ts=ts)
    for number, name in enumerate(names):
        rows = series == number
        at = step[rows] - step[rows].min()
        actual, made = np.full(at.max() + 1, np.nan), np.full((at.max() + 1, len(steps)), np.nan)
        actual[at] = np.where(observed[rows], values[rows], np.nan)
        made[at] = ahead[rows]
        start = int(at[np.argmax(ts[rows] >= cut)])
        yield errors_of(str(name), freq, actual, made, start, step[rows].min())


def middle(frame: pl.DataFrame) -> int:
    """The time that parts a table into halves."""
    return int(frame["ts"].quantile(0.5) or 0)


def fitted_before(history: History, cut: int, name: str, freq: str, budget: float) -> Forecaster:
    """A model a day ahead, of what lies before a time; `budget` in seconds."""
    horizon, config = seasonal_lags(freq)["day"], ForecastConfig(seconds=budget)
    job = TrainJob(name=name, horizon=horizon, freq=freq, config=config)
    return Forecaster.from_job(job).fit_history(before(history, cut))


def errors_of(name: str, freq: str, actual: Floats, made: Floats, start: int, first: int) -> Errors:
    """What forecasts (T,H) made at each step missed of the actual values (T,); `first` is the first step's number."""
    lags = seasonal_lags(freq)
    steps = scored_steps(lags["day"])
    error, naive = np.full_like(made, np.nan), np.full_like(made, np.nan)
    for place, h in enumerate(steps):
        error[h:, place] = actual[h:] - made[:-h, place]
        naive[lags["week"] :, place] = actual[lags["week"] :] - actual[: -lags["week"]]
    numbers, scored = first + np.arange(len(actual)), WINDOW + lags["day"]
    return Errors(name, steps, lags["day"], lags["week"], error, naive, numbers, start, scored)


def quantiles(error: Floats, miss: float) -> Floats:
    """The margins (H,2) of these errors (N,H)."""
    low, high = np.nanquantile(error, [miss, 1 - miss], axis=0)
    return np.stack([-low, high], axis=1)


def tracked(data: Errors, coverage: float) -> Floats:
    """Our margins (T,H,2), begun with the quantiles of a thousand errors before the start."""
    intervals, T = Intervals(data.steps, coverage, data.season), len(data.error)
    known = data.error[max(0, data.start - 1000) : data.start]
    tracks = {name: np.zeros((1, *field.shape), field.dtype) for name, field in intervals.fields.items()}
    intervals.begin(tracks, quantiles(known, (1 - coverage) / 2)[None])
    issued = np.full((T + max(data.steps), 1, len(data.steps), 2), np.nan, np.float32)
    for t in range(data.start, T):
        known = np.isfinite(issued[t]).all(axis=2)
        steps = intervals.steps(data.error[t : t + 1], known, data.number[t : t + 1])
        intervals.update(tracks, steps, issued[t])
        margins = intervals.margins(tracks, steps)
        for place, h in enumerate(data.steps):
            issued[t + h, :, place] = margins[:, place]
    return issued[:T, 0].astype(np.float64)


def rolling(error: Floats, steps: tuple[int, ...], coverage: float) -> Floats:
    """The margins (T,H,2) of the last errors that were known h steps before."""
    miss = (1 - coverage) / 2
    margins = np.full((*error.shape, 2), np.nan)
    for place, h in enumerate(steps):
        known = error[:, place]
        at = np.flatnonzero(np.isfinite(known))
        last = np.sort(np.lib.stride_tricks.sliding_window_view(known[at], WINDOW), axis=1)
        high = min(int(np.ceil((1 - miss) * (WINDOW + 1))), WINDOW) - 1
        found = np.stack([-last[:, WINDOW - 1 - high], last[:, high]], axis=1)
        newest = np.searchsorted(at, np.arange(len(known)) - h, side="right") - WINDOW
        margins[newest >= 0, place] = found[newest[newest >= 0]]
    return margins


def scores(data: Errors, error: Floats, margins: Floats, place: int, coverage: float) -> tuple[float, ...]:
    """Coverage, mean width, mean Winkler score, and that of the worst week."""
    known = slice(data.start + data.scored, None)
    e, lower, upper = error[known, place], -margins[known, place, 0], margins[known, place, 1]
    beyond = np.maximum(lower - e, 0) + np.maximum(e - upper, 0)
    winkler = upper - lower + beyond * 2 / (1 - coverage)
    there = np.isfinite(winkler)
    weeks = [winkler[first : first + data.week] for first in range(0, len(winkler), data.week)]
    worst = max(float(np.nanmean(week)) for week in weeks if np.isfinite(week).sum() > data.week / 2)
    return float((beyond == 0)[there].mean()), float((upper - lower)[there].mean()), float(winkler[there].mean()), worst


def lines(data: Errors, coverage: float, margins: Floats) -> Iterator[tuple[str, tuple[float, ...]]]:
    """For each step how these margins do beside the others: as a line, and coverage, Winkler over the window's and over
    the naive's, worst week over the window's.
    """
    window, naive = (rolling(e, data.steps, coverage) for e in (data.error, data.naive))
    for place, h in enumerate(data.steps):
        ours = scores(data, data.error, margins, place, coverage)
        theirs = scores(data, data.error, window, place, coverage)
        seasonal = scores(data, data.naive, naive, place, coverage)
        ratios = ours[0], ours[2] / theirs[2], ours[2] / seasonal[2], ours[3] / theirs[3]
        row = "{:8.3f} {:10.4g} {:8.4g} {:10.4g}".format(*ours)
        row += f"   {theirs[0]:8.3f} {theirs[2]:9.4g} ({ratios[1] - 1:+.0%}) {theirs[3]:9.4g} {seasonal[2]:12.4g}"
        yield f"{data.name[:22]:22} {coverage:.0%} h={h:<3}{row}", ratios


def main() -> None:
    """Print a line for each series, coverage and step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--budget", type=float, default=60, help="seconds to train each model")
    parser.add_argument("--keep", type=Path, help="a folder for forecasts")
    given = parser.parse_args()
    print(HEAD)
    for path in given.data:
        columns = path.open().readline().strip().split(",")
        made = "y" in columns[1:-1]
        for data in one_step_ahead(path) if made else a_day_ahead(path, given.budget, given.keep):
            for coverage in (0.9, 0.8):
                for line, _ in lines(data, coverage, tracked(data, coverage)):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
