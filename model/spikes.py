"""A few readings far from all others: winsorised, so that they decide neither a series' scale nor the next forecasts.

In training a series is judged as a whole, in serving a window by itself, against what training saw. A reading counts as
a spike if it is one of a few, and lies further from all others than REACH times their range. So a shift of level, which
is many readings, is never one, nor is a burst that a series has often. A spike is replaced by the nearest of the
others, as always when a distribution is winsorised.

B windows   S steps   F features   T rows
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from model.windows import WindowData

REACH = 10.0
LEAST, FEW, SHARE = 8, 5, 200
"""Of n >= LEAST readings of a window an eighth, at most FEW, may be spikes at either end; of a series one in SHARE, if
more."""

Reals = npt.NDArray[np.float64]


def few(readings: int) -> int:
    """How many of a window's readings may be spikes at either end: 0 of less than LEAST, which say too little."""
    return min(readings // LEAST, FEW)


def winsorised(x: Reals, spans: Reals) -> Reals:
    """Windows (B,S,F) without spikes: the same array if none has any.

    `spans` (F,) is the greatest range of a series in training, infinite for a feature that is left alone: a spike lies
    further than that from all others, too. It depends on nothing but its window.
    """
    count = few(x.shape[1])
    if not count or not np.isfinite(spans).any() or x.max(initial=-np.inf) - x.min(initial=np.inf) <= spans.min():
        return x
    rows = np.flatnonzero((x.max(axis=1) - x.min(axis=1) > spans).any(axis=1))
    if not len(rows):
        return x
    windows = x[rows]
    last = x.shape[1] - 1 - count
    ordered = np.partition(windows, (count, last), axis=1)
    low, high = ordered[:, [count]], ordered[:, [last]]
    clipped = _clipped(windows, low, high, np.maximum(REACH * (high - low), spans))
    if (clipped == windows).all():
        return x
    result = x.copy()
    result[rows] = clipped
    return result


def without_spikes(data: WindowData, columns: Sequence[int], before: int) -> tuple[Reals, Mapping[str, int]]:
    """The values (T,F) with the spikes before a time winsorised in these columns, and how many each series had."""
    values, counts = data.values, dict[str, int]()
    known = np.flatnonzero(data.ts < before)
    edges = np.flatnonzero(np.diff(data.series[known], prepend=-1, append=-1))
    parts = [known[start:end] for start, end in pairwise(edges.tolist())]
    for column in columns:
        bounds = [_bounds(values[part, column][data.observed[part, column]]) for part in parts]
        typical = np.median([high - low for low, high in bounds if -np.inf < low < high] or [0.0])
        for part, (low, high) in zip(parts, bounds, strict=True):
            reach = REACH * ((high - low) or max(abs(high), typical)) or np.inf
            clipped = _clipped(values[part, column], low, high, reach)
            if found := int((clipped != values[part, column])[data.observed[part, column]].sum()):
                values = values.copy() if values is data.values else values
                values[part, column] = clipped
                name = data.names[data.series[part[0]]]
                counts[name] = counts.get(name, 0) + found
    return values, counts


def _bounds(readings: Reals) -> tuple[float, float]:
    """The range of a series' readings but for the few at either end."""
    count = len(readings)
    most = min(max(few(count), count // SHARE), max(0, (count - 1) // 2))
    if not most:
        return -np.inf, np.inf
    ordered = np.partition(readings, (most, count - 1 - most))
    return float(ordered[most]), float(ordered[count - 1 - most])


def _clipped(values: Reals, low: Reals | float, high: Reals | float, reach: Reals | float) -> Reals:
    return np.where(values > high + reach, high, np.where(values < low - reach, low, values))


def spans(data: WindowData, before: int) -> Reals:
    """The greatest range of a series (F,) before a time; infinite where all are constant.

    Series too short to be judged count only if all are.
    """
    known = data.ts < before
    series, width = data.series[known], data.values.shape[1]
    low, high = np.full((len(data.names), width), np.inf), np.full((len(data.names), width), -np.inf)
    np.minimum.at(low, series, data.values[known])
    np.maximum.at(high, series, data.values[known])
    judged = np.bincount(series, minlength=len(low)) >= LEAST
    greatest = (high - low)[judged if judged.any() else ...].max(axis=0)
    return np.where(greatest > 0, greatest, np.inf)
