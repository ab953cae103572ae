"""The season of the data itself, from the autocorrelation of its series; in numpy.

L lags, 0 first
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from model.windows import Rows, WindowData

Reals = npt.NDArray[np.float64]
MAX_SERIES, MAX_STEPS = 32, 2**15
"""The series whose autocorrelations are averaged, and the latest steps of each that are looked at."""
CYCLES = 3
"""The fewest cycles that the data must have of a season."""
LEAST = 0.25
"""The least autocorrelation at a season, and again at twice the season."""
CONTRAST = 0.35
"""How far these must be above the mean of all lags between: a trend or a random walk is alike at all of them."""
CLIP = 8
"""Values further from the median than so many median deviations are clipped: one spike is no season."""


def find_season(data: WindowData, column: int, before: int, known: Collection[int] = ()) -> int | None:
    """The season of a feature in steps, from its rows before a time (epoch milliseconds); None if it has none.

    The shortest lag at which the series repeat themselves about as well as at any other; None too if they do so at one
    of the `known` lags, those of the calendar. Deterministic.
    """
    series = _laid_out(data, column, before)
    if not series:
        return None
    found = [
        season
        for each in (series, [np.diff(values) for values in series])  # differences: where a trend hides the season
        if (correlation := _autocorrelation(each)) is not None and (season := _season(*correlation, known))
    ]
    _, lag = max(found, key=lambda each: each[0], default=(0.0, 0))
    return None if lag in known else lag or None


def _laid_out(data: WindowData, column: int, before: int) -> list[Reals]:
    """Some of the series, by step, nan where nothing was observed; the longest of each up to MAX_STEPS."""
    rows = np.flatnonzero((data.ts < before) & data.observed[:, column])
    series = np.unique(data.series[rows])
    laid = []
    for number in series[np.unique(np.linspace(0, len(series) - 1, MAX_SERIES).astype(int))] if len(series) else ():
        own: Rows = rows[data.series[rows] == number]
        step = data.step[own]
        own, step = own[step > step[-1] - MAX_STEPS], step[step > step[-1] - MAX_STEPS]
        values = np.full(int(step[-1] - step[0]) + 1, np.nan)
        values[step - step[0]] = data.values[own, column]
        laid.append(values)
    return laid


def _autocorrelation(series: list[Reals]) -> tuple[Reals, int] | None:
    """The mean autocorrelation (L,) of series without their linear trends, and its length in steps.

    None if all are constant or too short.
    """
    longest = max(map(len, series))
    size = 1 << (2 * longest).bit_length()
    total, count = np.zeros(longest), np.zeros(longest)
    for values in map(_standardised, series):
        if values is None:
            continue
        there = np.isfinite(values)
        power = np.abs(np.fft.rfft(np.where(there, values, 0.0), size)) ** 2
        total += np.fft.irfft(power, size)[:longest]
        count += np.fft.irfft(np.abs(np.fft.rfft(there.astype(float), size)) ** 2, size)[:longest]
    if count[0] < 2 * CYCLES:
        return None
    mean = total / np.maximum(np.round(count), 1)
    return np.clip(mean, -1, 1), int(np.round(count[0]))  # of few pairs, next to gaps, it may be beyond


def _standardised(values: Reals) -> Reals | None:
    """Values without their linear trend and outliers, with variance 1; None if they are constant."""
    there = np.flatnonzero(np.isfinite(values))
    if len(there) < 2 * CYCLES:
        return None
    scale = np.abs(values[there]).max() or 1.0
    known = values[there] / scale
    known = known - np.polyval(np.polyfit(there, known, 1), there)
    known -= np.median(known)
    spread = CLIP * np.median(np.abs(known)) or CLIP * known.std()
    known = np.clip(known, -spread, spread)
    deviation = known.std()
    if not deviation > np.finfo(np.float32).eps:
        return None
    result = np.full(len(values), np.nan)
    result[there] = (known - known.mean()) / deviation
    return result


def _season(correlation: Reals, count: int, known: Collection[int]) -> tuple[float, int] | None:
    """How clear the season is, and its lag."""
    half, longest, noise = len(correlation) // 2, len(correlation) // CYCLES, 1 / np.sqrt(count)
    peaks, _ = find_peaks(correlation[:half], prominence=0.05)
    sums = np.cumsum(correlation)
    contrasts: dict[int, float] = {}
    for lag in sorted({*peaks.tolist(), *known}):
        if 2 <= lag <= longest:
            wide = max(1, lag // 50)
            least = float(min(correlation[lag], correlation[2 * lag - wide : 2 * lag + wide + 1].max()))
            contrast = least - float(sums[2 * lag] - correlation[0]) / (2 * lag)
            if least > max(LEAST, 4 * noise):
                contrasts[lag] = contrast
    if max(contrasts.values(), default=0) < CONTRAST:
        return None
    unlike = {lag: 1 - correlation[lag] for lag, contrast in contrasts.items() if contrast > CONTRAST / 2}
    enough = 1.25 * min(unlike.values()) + 0.01 + noise / 2
    alike = [lag for lag in unlike if unlike[lag] <= enough]
    lag = next((each for each in alike if each in known), alike[0])
    return contrasts[lag], lag if lag in known else _crest(correlation, lag, half)


def _crest(correlation: Reals, lag: int, half: int) -> int:
    """The lag nearby whose multiples are the most alike: noise moves a single peak."""
    nearby = range(max(2, int(0.9 * lag)), min(half, int(1.1 * lag) + 1) + 1)
    return max(nearby, key=lambda each: float(correlation[each : min(3 * each, half) + 1 : each].mean()))
