"""Intervals of forecasts, under the columns that Nixtla's users know: Tidecast-lo-90, Tidecast-hi-90."""

import logging
from collections.abc import Iterable, Sequence
from math import isfinite

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


def checked_levels(levels: Iterable[float] | None) -> tuple[float, ...]:
    """Levels in percent, ascending; None is of none. Raises ConfigError for one that is not from 1 to below 100."""
    found = [levels] if isinstance(levels, int | float) else list(levels or ())
    for level in found:
        if not isinstance(level, int | float) or not isfinite(level) or not 1 <= level < 100:
            raise ConfigError(f"level: {level!r} is not a percentage from 1 to 99.9, such as 90")
    return tuple(sorted({float(level) for level in found}))


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


def bound_names(column: str, levels: Sequence[float]) -> list[str]:
    """The columns of a forecast's bounds, from the lowest to the highest."""
    return [f"{column}-lo-{level:g}" for level in reversed(levels)] + [f"{column}-hi-{level:g}" for level in levels]


def bound_columns(columns: Sequence[str], bounds: Bounds) -> dict[str, Reals]:
    """The bounds of each target's forecast, (N * K,) by column. Raises ConfigError for a name that is taken."""
    found: dict[str, Reals] = {}
    for target, column in enumerate(columns):
        sides = [bounds[level][0] for level in reversed(bounds)] + [upper for _, upper in bounds.values()]
        for name, side in zip(bound_names(column, list(bounds)), sides, strict=True):
            if name in found or name in columns:
                raise ConfigError(f"level: two columns would be called {name!r}; rename a target")
            found[name] = side[..., target].ravel()
    return found


def say_missing(table: pl.DataFrame, levels: Sequence[float]) -> int:
    """Say for how many forecasts there is no interval, and why; how many."""
    names = [name for name in table.columns if name.endswith(tuple(f"-lo-{level:g}" for level in levels))]
    without = table.filter(pl.any_horizontal(pl.col(names).is_null())) if names else table.clear()
    if len(without):
        needed = " and ".join(f"{-(-level // (100 - level)):g} for {level:g} %" for level in levels)
        series = without["unique_id"].n_unique()
        logger.warning(
            f"{len(without):,} forecasts of {series:,} series have no interval: too few actual values to calibrate on "
            f"({needed} at each step)"
        )
    return len(without)
