"""Seasons, and the forecasts that need no learning; in numpy, as serving makes them too."""

import re

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Rows = npt.NDArray[np.int64]

SEASONS = {"day": 86_400_000, "week": 604_800_000}
YEAR = 31_556_952_000
"""Milliseconds, in the mean."""
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def seasonal_lags(freq: str | None) -> dict[str, int]:
    """The seasons of a series that are two or more whole steps: a day and a week, or a year of months or (52) weeks.

    None, for events without a grid, has no seasons.
    """
    number, unit = _parsed(freq)
    if unit == "mo":
        return {"year": 12 // number} if 12 % number == 0 and number < 12 else {}
    if unit == "w":
        return {"year": 52 // number} if 52 % number == 0 and number < 52 else {}
    step = number * _UNITS.get(unit, 0)
    return {name: length // step for name, length in SEASONS.items() if 0 < step < length and length % step == 0}


def step_length(freq: str | None) -> int:
    """A step in milliseconds; in months on a calendar's grid, 0 without a grid."""
    number, unit = _parsed(freq)
    return number * ({"mo": 1, "y": 12, "w": SEASONS["week"]} | _UNITS).get(unit, 0)


def calendar_cycles(freq: str | None) -> dict[str, int]:
    """A day, a week and a year in the unit of `step_length`: those that hold two steps or more."""
    cycles = {"year": 12} if _parsed(freq)[1] in ("mo", "y") else {**SEASONS, "year": YEAR}
    return {name: length for name, length in cycles.items() if 0 < 2 * step_length(freq) <= length}


def _parsed(freq: str | None) -> tuple[int, str]:
    parsed = re.fullmatch(r"(\d+)([a-z]+)", freq or "")
    return (0, "") if parsed is None else (int(parsed[1]), parsed[2])


def shortest_lag(freq: str | None) -> int:
    """The shortest season in steps; 1 where there is none, which makes the seasonal naive the last value."""
    return min(seasonal_lags(freq).values(), default=1)


def seasonal_naive(values: Floats, ends: Rows, first: Rows, horizon: int, lag: int) -> Floats:
    """The values, (T,O) or (T,), one season earlier, for the `horizon` steps after each end row: (N,K,O) or (N,K).

    The season is `lag` rows, or as many of them as reach back to the end row or before it. Where that lies before
    `first` (N,), the first row that belongs to the window's series without a break, the end row's value repeats.
    With lag 1 this is the last-value forecast.
    """
    ahead = np.arange(1, horizon + 1)
    rows = ends[:, None] + ahead - lag * -(-ahead // lag)
    return np.asarray(values[np.where(rows < first[:, None], ends[:, None], rows)])
