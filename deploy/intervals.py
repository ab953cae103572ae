"""Intervals of forecasts, under the columns that Nixtla's users know: Tidecast-lo-90, Tidecast-hi-90."""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from model.evaluation.intervals import naive_calibration, window_scales
from model.evaluation.splits import run_starts, sample
from model.training.forecasting import FittedForecaster
from model.windows import Flags, Floats, Rows
from pipeline.windows.sliding import SlidingWindows
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)

Reals = npt.NDArray[np.float64]
Bounds = dict[float, tuple[Reals, Reals]]
"""Lower and upper bounds (N,K,O), nan where there are none, by level in percent, ascending."""


def bounds_from(
    fitted: FittedForecaster,
    learnt: SlidingWindows,
    data: SlidingWindows,
    ends: Rows,
    forecasts: tuple[Floats, Flags],
    levels: Sequence[float],
) -> Bounds:
    """The bounds of forecasts (N,K,O) from some rows, and which are the model's (N,): split-conformal.

    The model's are calibrated on its errors in validation, naive ones on those of naive forecasts by as many steps, in
    the history that it `learnt` from.
    """
    (values, full), card = forecasts, fitted.card
    bounds = {level: (np.full(values.shape, np.nan), np.full(values.shape, np.nan)) for level in levels}
    calibrations = [(np.flatnonzero(full), fitted.calibration, None)]
    if levels and not full.all():
        rows, origins = np.flatnonzero(~full), sample(np.arange(len(learnt.ts)))
        steps = np.minimum(ends[rows] - run_starts(data, ends[rows]) + 1, data.seq_len)
        lag, before = card.input.season_lag, fitted.split.cuts.test
        naive = naive_calibration(learnt, origins, card, lag, np.resize(steps, len(origins)), before)
        calibrations.append((rows, naive, steps))
    for rows, calibration, steps in calibrations:
        if len(rows) and calibration is not None:
            scales = window_scales(data, ends[rows], card, steps)
            for level, sides in bounds.items():
                found = calibration.bounds(values[rows], scales, level / 100, card.output.clipped)
                for side, each in zip(sides, found, strict=True):
                    side[rows] = each
    return bounds


def bound_pair(column: str, level: float) -> tuple[str, str]:
    """The columns of a forecast's lower and upper bounds."""
    return f"{column}-lo-{level:g}", f"{column}-hi-{level:g}"


def bound_columns(columns: Sequence[str], bounds: Bounds) -> dict[str, Reals]:
    """The bounds of each target's forecast, (N * K,) by column, from the lowest to the highest.

    Raises ConfigError for a name that is taken.
    """
    found: dict[str, Reals] = {}
    for target, column in enumerate(columns):
        lower = {bound_pair(column, level)[0]: bounds[level][0] for level in reversed(bounds)}
        upper = {bound_pair(column, level)[1]: bounds[level][1] for level in bounds}
        for name, bound in (lower | upper).items():
            if name in found or name in columns:
                raise ConfigError(f"level: two columns would be called {name!r}; rename a target")
            found[name] = bound[..., target].ravel()
    return found


def without_interval(table: pl.DataFrame, levels: Sequence[float]) -> pl.DataFrame:
    """The forecasts that lack the bounds of a level."""
    bounds = [name for name in table.columns if name.endswith(tuple(bound_pair("", level)[0] for level in levels))]
    return table.filter(pl.any_horizontal(pl.col(bounds).is_null())) if bounds else table.clear()


def say_missing(table: pl.DataFrame, levels: Sequence[float]) -> None:
    """Say which forecasts have no interval, and why."""
    if len(without := without_interval(table, levels)):
        needed = " and ".join(f"{-(-level // (100 - level)):g} for {level:g} %" for level in levels)
        logger.warning(
            f"{len(without):,} forecasts of {without['unique_id'].n_unique():,} series have no interval: too few "
            f"actual values to calibrate on ({needed} at each step)"
        )
