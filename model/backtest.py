"""Rolling-origin evaluation: how data is split in time, what a forecast has to beat, and by what measure; in numpy.

Every error here is a mean squared error in z-scores: divided by the variance of its series in the training part.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from model.series import WindowData
from model.spec import ShapeError

Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

SEASONS = {"day": 86_400_000, "week": 604_800_000}
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Split:
    """Windows before and after one event time, by the rows they end in.

    Every target of a training window lies before `cut` (epoch milliseconds), every target of a validation window at or
    after it; a validation window may look back across it.
    """

    train: Rows
    validation: Rows
    cut: int


def split(data: WindowData, horizon: int, fraction: float) -> Split:
    """Splits the windows whose whole horizon lies in their run, so that the last `fraction` of all rows validates.

    Raises ValueError if either side is left without a window.
    """
    rows = len(data.ts)
    held_out = round(rows * fraction)
    cut = int(np.partition(data.ts, rows - held_out)[rows - held_out]) if 0 < held_out <= rows else 0
    ends = data.ends[data.ends + horizon < rows]
    ends = ends[data.run[ends] == data.run[ends + horizon]]
    train, validation = ends[data.ts[ends + horizon] < cut], ends[data.ts[ends + 1] >= cut]
    if not len(train) or not len(validation):
        raise ValueError(
            f"too few windows: {len(train)} to train on and {len(validation)} to validate on, from {rows} steps in "
            f"{len(data.names)} series; seq_len {data.seq_len} and horizon {horizon} need a series of at least "
            f"{steps_needed(data.seq_len, horizon, fraction)} events without a break"
        )
    return Split(train, validation, cut)


def steps_needed(seq_len: int, horizon: int, fraction: float) -> int:
    """The least length of a single series that gives one window to train on and one to validate on."""
    lengths = ((n, round(n * fraction)) for n in count(seq_len + horizon))
    return next(n for n, held_out in lengths if held_out >= horizon and n - held_out >= seq_len + horizon)


def series_scale(data: WindowData, columns: Sequence[int], before: int) -> npt.NDArray[np.float64]:
    """Each series' standard deviation, (series, columns), over what was observed before a time (epoch milliseconds).

    A series that is constant or absent there gets the median of the others, 1 if there are none.
    """
    scale = np.ones((len(data.names), len(columns)))
    for place, column in enumerate(columns):
        known = data.observed[:, column] & (data.ts < before)
        series, values = data.series[known], data.values[known, column].astype(np.float64)
        size = np.bincount(series, minlength=len(data.names))
        mean = np.bincount(series, values, len(data.names)) / np.maximum(size, 1)
        variance = np.bincount(series, (values - mean[series]) ** 2, len(data.names)) / np.maximum(size, 1)
        deviation = np.sqrt(variance)
        varies = deviation > np.abs(mean) * np.finfo(np.float32).eps
        typical = np.median(deviation[varies]) if varies.any() else 1.0
        scale[:, place] = np.where(varies, deviation, typical)
    return scale


def seasonal_lags(freq: str | None) -> dict[str, int]:
    """The seasons of a series that are two or more whole steps: a day and a week, or a year of months.

    None, for events without a grid, has no seasons.
    """
    parsed = re.fullmatch(r"(\d+)([a-z]+)", freq or "")
    if parsed is None:
        return {}
    number, unit = int(parsed[1]), parsed[2]
    if unit == "mo":
        return {"year": 12 // number} if 12 % number == 0 and number < 12 else {}
    step = number * _UNITS.get(unit, 0)
    return {name: length // step for name, length in SEASONS.items() if 0 < step < length and length % step == 0}


def targets(data: WindowData, ends: Rows, horizon: int, columns: Sequence[int]) -> tuple[Floats, Flags]:
    """What happened after each window, (N,K,O), and which of it was observed."""
    rows = ends[:, None] + np.arange(1, horizon + 1)
    return data.values[rows][..., list(columns)], data.observed[rows][..., list(columns)]


def seasonal_naive(values: Floats, ends: Rows, first: Rows, horizon: int, lag: int) -> Floats:
    """The values (T,O) one season earlier, for the `horizon` steps after each end row: (N,K,O).

    The season is `lag` rows, or as many of them as reach back to the end row or before it. Where that lies before
    `first` (N,), the first row that belongs to the window's series without a break, the end row's value repeats.
    With lag 1 this is the last-value forecast.
    """
    ahead = np.arange(1, horizon + 1)
    rows = ends[:, None] + ahead - lag * -(-ahead // lag)
    return np.asarray(values[np.where(rows < first[:, None], ends[:, None], rows)])


def baselines(
    data: WindowData, ends: Rows, horizon: int, columns: Sequence[int], freq: str | None
) -> dict[str, Floats]:
    """Every naive forecast (N,K,O) from these windows' origins: `last`, and one for each season of `freq`."""
    values = data.values[:, list(columns)]
    begins = np.flatnonzero(np.diff(data.run, prepend=data.run[0] - 1))
    first = begins[np.searchsorted(begins, ends, side="right") - 1]
    lags = {"last": 1, **seasonal_lags(freq)}
    return {name: seasonal_naive(values, ends, first, horizon, lag) for name, lag in lags.items()}


def mse(forecast: Floats, actual: Floats, scale: Floats | float, observed: Flags | None = None) -> float:
    """The mean squared error over all observed targets, in z-scores; nan if there are none.

    `forecast` and `actual` have one shape, such as (N,K) or (N,K,O); `scale`, the training part's standard deviation,
    broadcasts to it. Raises ShapeError for two shapes.
    """
    if forecast.shape != actual.shape:
        raise ShapeError(f"forecast {forecast.shape} and actual {actual.shape} must have one shape")
    error = ((forecast.astype(np.float64) - actual) / scale) ** 2
    kept = error if observed is None else error[observed]
    return float(kept.mean()) if kept.size else float("nan")


def naive_scores(
    data: WindowData, ends: Rows, horizon: int, columns: Sequence[int], freq: str | None, scale: Floats
) -> dict[str, float]:
    """Each naive forecast's mse over these windows; `scale` is (series, O)."""
    totals: dict[str, float] = {}
    seen = 0
    for part in _chunks(ends):
        actual, observed = targets(data, part, horizon, columns)
        weight, kept = scale[data.series[part]][:, None], int(observed.sum())
        seen += kept
        for name, forecast in baselines(data, part, horizon, columns, freq).items():
            totals[name] = totals.get(name, 0.0) + (mse(forecast, actual, weight, observed) * kept if kept else 0.0)
    return {name: total / seen if seen else float("nan") for name, total in totals.items()}


def _chunks(ends: Rows) -> Iterator[Rows]:
    return (ends[start : start + _CHUNK] for start in range(0, len(ends), _CHUNK))
