"""Forecasts from the steps of a history: their origins in a cross-validation, and the actual values ahead of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from deploy.training.jobs import TrainJob
from model.evaluation.baselines import seasonal_naive
from model.evaluation.splits import Cuts, held_out, run_starts
from model.training.forecasting import FittedForecaster, forecast
from model.windows import Floats, Rows
from pipeline.datasets.history import History
from pipeline.windows.grid import Ints
from pipeline.windows.sliding import SlidingWindows
from pipeline.windows.steps import Grid
from tidecast.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Origins:
    """The last steps that forecasts are made from, in order; without a grid their times."""

    places: Ints
    """The steps' numbers."""
    times: Ints
    """The time of the last event of any series up to each, epoch milliseconds."""
    cuts: Cuts
    """What lies before the first of them, in a training and a validation part."""
    gridded: bool

    def ends(self, data: SlidingWindows, place: int) -> Rows:
        """The row of each series' last event up to an origin."""
        before = (data.step if self.gridded else data.ts) <= place
        rows = np.flatnonzero(before & data.observed.any(axis=1))
        return np.asarray(rows[np.diff(data.series[rows], append=-1) != 0])


def rolling_origins(history: History, job: TrainJob, offset: str | None, n_windows: int, step_size: int) -> Origins:
    """The origins that are `step_size` steps apart, the last one a horizon before the end, on the job's grid.

    Raises ConfigError for more than fit into the history.
    """
    horizon, times = job.horizon or 1, history.frame["ts"].to_numpy()
    grid = None if job.freq is None else Grid.parse(job.freq, job.aggregate is not None, offset)
    places = times if grid is None else grid.index(times)
    steps = np.unique(places)
    back = horizon + step_size * np.arange(n_windows)[::-1]
    if back.max() >= len(steps):
        raise ConfigError(f"n_windows: {n_windows} cutoffs do not fit into {len(steps):,} steps")
    origins = steps[len(steps) - 1 - back]
    past = steps[steps <= origins[0]]
    validation = past[-held_out(len(past), job.config.validation, horizon)]
    last = np.array([times[places <= origin].max() for origin in origins])
    cuts = Cuts(int(times[places < validation].max()) + 1, int(last[0]) + 1)
    return Origins(origins, last, cuts, grid is not None)


def actual_values(data: SlidingWindows, history: History, job: TrainJob, columns: Mapping[str, str]) -> pl.DataFrame:
    """The values of some features, by the columns that they are called: a row for each step that has an event.

    With its series, the `step`, and the event's own time `ts`.
    """
    rows = np.flatnonzero(data.observed.any(axis=1))
    places = {"series": [data.names[number] for number in data.series[rows]], "step": data.step[rows]}
    steps = pl.DataFrame({**places, "ts": data.ts[rows]}, schema_overrides={"series": pl.String})
    if job.aggregate is not None:
        values = data.values[rows].astype(np.float64)
        return steps.with_columns(pl.Series(columns[name], values[:, job.features.index(name)]) for name in columns)
    given = history.frame.select("series", "ts", *(pl.col(name).alias(column) for name, column in columns.items()))
    given = given.unique(["series", "ts"], keep="first", maintain_order=True)
    return steps.join(given, on=("series", "ts"), how="left")


def forecasts_from(
    fitted: FittedForecaster, data: SlidingWindows, ends: Rows, future: Floats | None
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The targets' forecasts (N,K,O) from some rows, and which are the model's, (N,).

    Those with too little history, or without all future covariates (N,K,C), are seasonal naive ones. Raises DataError
    for values that are too large.
    """
    card = fitted.card
    actual, full = data.values[:, card.target_columns], np.isin(ends, data.ends)
    if future is not None:
        full &= np.isfinite(future).all(axis=(1, 2))
    lag = card.input.season_lag
    values = seasonal_naive(actual, ends, run_starts(data, ends), card.output.horizon, lag)
    if full.any():
        values[full] = forecast(fitted.model, data, ends[full], None if future is None else future[full])
    if len(wrong := np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))):
        name = data.names[data.series[ends[wrong[0]]]]
        raise DataError(f"the forecast of {name!r} is not finite: its values are too large")
    return values, full
