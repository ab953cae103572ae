"""Forecast metrics in numpy: MSE and MAE in z-scores, MASE and sMAPE; of intervals coverage, Winkler score and CRPS.

An error in z-scores is divided by the standard deviation of its series in the training part.

C series   N windows   K horizon steps   O targets
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.windows import Flags, Floats, WindowData
from tidecast.errors import ShapeError

Reals = npt.NDArray[np.float64]
METRICS = ("mse", "mae", "mase", "smape")
"""MSE and MAE in z-scores; MASE, scaled by the seasonal naive's MAE in training; sMAPE, in percent from 0 to 200."""
METRICS_IN_WORDS = (
    "mse, mae: mean squared and absolute error in z-scores, of the series' standard deviation; mase: absolute error in "
    "naive one-step errors, below 1 is better than those; smape: in percent, from 0 to 200"
)
Metrics = dict[str, float]
MAX_WORST = 5
"""Most series that are named as those that make up most of an error."""
ROUNDING = 1e-15
"""A series whose deviation is less, relative to its level, is constant: it is rounding."""


def series_scale(data: WindowData, columns: Sequence[int], before: int) -> Reals:
    """Each series' standard deviation (C,O) over the values observed before a time (epoch milliseconds).

    A series that is constant or absent there gets the median of the other series, 1 if there are none.
    """
    scale = np.ones((len(data.names), len(columns)))
    for place, column in enumerate(columns):
        known = data.observed[:, column] & (data.ts < before)
        series, values = data.series[known], data.values[known, column]
        first = np.zeros(len(data.names))
        first[series[::-1]] = values[::-1]
        values = values - first[series]  # squares of a large level would hide what varies, and sums round a constant
        size = np.bincount(series, minlength=len(data.names))
        mean = np.bincount(series, values, len(data.names)) / np.maximum(size, 1)
        variance = np.bincount(series, (values - mean[series]) ** 2, len(data.names)) / np.maximum(size, 1)
        deviation = np.sqrt(variance)
        varies = deviation > np.abs(first) * ROUNDING
        typical = np.median(deviation[varies]) if varies.any() else 1.0
        scale[:, place] = np.where(varies, deviation, typical)
    return scale


def squared_error(forecast: Floats, actual: Floats, scale: Floats | float) -> Reals:
    """Each target's squared error in z-scores; `scale`, the standard deviation, broadcasts to the forecast's shape."""
    error: Reals = ((forecast.astype(np.float64) - actual) / scale) ** 2
    return error


def mse(forecast: Floats, actual: Floats, scale: Floats | float, observed: Flags | None = None) -> float:
    """The mean squared error over all observed targets, in z-scores; nan if there are none.

    `forecast` and `actual` have one shape, such as (N,K) or (N,K,O); `scale`, the training part's standard deviation,
    broadcasts to it. Raises ShapeError if the shapes differ.
    """
    if forecast.shape != actual.shape:
        raise ShapeError(f"forecast {forecast.shape} and actual {actual.shape} must have one shape")
    error = squared_error(forecast, actual, scale)
    kept = error if observed is None else error[observed]
    return float(kept.mean()) if kept.size else float("nan")


def window_mse(forecast: Floats, actual: Floats, observed: Flags, scale: Reals) -> Reals:
    """Each window's mean squared error (N,) in z-scores; nan where no target of the window was observed.

    `forecast`, `actual` and `observed` are (N,K,O); `scale`, each window's standard deviation, is (N,O).
    """
    error = np.where(observed, squared_error(forecast, actual, scale[:, None]), 0.0)
    count = observed.sum(axis=(1, 2))
    mean: Reals = np.divide(error.sum(axis=(1, 2)), count, out=np.full(len(error), np.nan), where=count > 0)
    return mean


def covered(lower: Floats, upper: Floats, actual: Floats) -> Flags:
    """Whether each actual value lies within its interval, the bounds included."""
    return np.asarray((lower <= actual) & (actual <= upper))


def winkler(lower: Floats, upper: Floats, actual: Floats, coverage: float) -> Reals:
    """The Winkler (interval) score of each interval: its width, and 2 / (1 - coverage) of what lies outside."""
    outside = np.maximum(lower - actual, 0) + np.maximum(actual - upper, 0)
    return np.asarray(upper - lower + 2 / (1 - coverage) * outside)


def pinball(quantile: Floats, level: float, actual: Floats) -> Reals:
    """The pinball loss of each forecast of a quantile."""
    return np.asarray(np.where(actual >= quantile, level, level - 1) * (actual - quantile))


def crps(quantiles: Floats, levels: Sequence[float], actual: Floats) -> Reals:
    """The continuous ranked probability score (...,), from quantiles (...,L): twice their mean pinball loss."""
    losses = [pinball(quantiles[..., place], level, actual) for place, level in enumerate(levels)]
    return np.asarray(2 * np.mean(losses, axis=0))


@dataclass(frozen=True, slots=True)
class ErrorScale:
    """The denominators of scaled errors, (C,O) each, from the training part alone."""

    deviation: Reals
    """Standard deviations."""
    naive: Reals
    """Mean absolute one-step errors of the seasonal naive, MASE's denominator."""


def error_scale(data: WindowData, columns: Sequence[int], before: int, lag: int, deviation: Reals) -> ErrorScale:
    """The error scale from the rows before a time (epoch milliseconds); `lag` is the season in steps, 1 for none.

    A series whose seasonal naive has no error, or that has too few rows for one, gets its standard deviation instead.
    """
    naive = deviation.copy()
    rows = np.arange(lag, len(data.ts))
    rows = rows[(data.run[rows] == data.run[rows - lag]) & (data.ts[rows] < before)]
    for place, column in enumerate(columns):
        known = rows[data.observed[rows, column] & data.observed[rows - lag, column]]
        values, series = data.values[:, column].astype(np.float64), data.series[known]
        total = np.bincount(series, np.abs(values[known] - values[known - lag]), len(data.names))
        count = np.bincount(series, minlength=len(data.names))
        naive[:, place] = np.where(total > 0, total / np.maximum(count, 1), naive[:, place])
    return ErrorScale(deviation, naive)


class Scores:
    """The accumulated errors of one forecaster; every observed target has equal weight."""

    def __init__(self, scale: ErrorScale, horizon: int) -> None:
        self._scale = scale
        shape = (len(scale.deviation), horizon, scale.deviation.shape[1])
        self._sums = {metric: np.zeros(shape) for metric in METRICS}
        self._counts = np.zeros(shape)

    def add(
        self,
        series: npt.NDArray[np.integer],
        forecast: npt.NDArray[np.floating],
        actual: npt.NDArray[np.floating],
        observed: npt.NDArray[np.bool_],
    ) -> None:
        """Add N windows of the series (N,): forecasts, actuals and which actuals were observed, (N,K,O) each."""
        assert forecast.shape == actual.shape == observed.shape
        truth = actual.astype(np.float64)
        error = np.where(observed, np.abs(forecast - truth), 0.0)
        deviation = self._scale.deviation[series][:, None]
        size = np.where(observed, np.abs(forecast) + np.abs(truth), 0.0)
        errors = {
            "mse": np.where(observed, squared_error(forecast, truth, deviation), 0.0),
            "mae": error / deviation,
            "mase": error / self._scale.naive[series][:, None],
            "smape": np.divide(200 * error, size, out=np.zeros_like(error), where=size > 0),
        }
        for metric, values in errors.items():
            np.add.at(self._sums[metric], series, values)
        np.add.at(self._counts, series, observed)

    def overall(self) -> Metrics:
        """Each metric over all windows added; nan if there are none."""
        return self._means(slice(None))

    def by_step(self) -> dict[str, list[float]]:
        """Each metric for each of the K steps ahead."""
        steps = [self._means((slice(None), step)) for step in range(self._counts.shape[1])]
        return {metric: [means[metric] for means in steps] for metric in METRICS}

    def by_series(self, names: Sequence[str]) -> dict[str, Metrics]:
        """Each metric for each series with an observed target."""
        counted = self._counts.sum(axis=(1, 2)) > 0
        return {name: self._means(place) for place, name in enumerate(names) if counted[place]}

    def worst(self, names: Sequence[str]) -> dict[str, float]:
        """The few series that make up most of the squared error, with their shares of it, the largest first.

        Empty unless at most a tenth of the series, or one, have more than half of it; one of two, nine tenths.
        """
        errors = self._sums["mse"].sum(axis=(1, 2))
        counted, total = int((self._counts.sum(axis=(1, 2)) > 0).sum()), float(errors.sum())
        largest = np.argsort(-errors)[: min(MAX_WORST, max(1, counted // 10))]
        most = total * (0.5 if counted > 2 else 0.9)
        if counted < 2 or not errors[largest].sum() > most:
            return {}
        kept = 1 + int(np.argmax(np.cumsum(errors[largest]) > most))
        return {names[place]: float(errors[place]) / total for place in largest[:kept].tolist()}

    def _means(self, part: int | slice | tuple[slice, int]) -> Metrics:
        count = float(self._counts[part].sum())
        return {name: float(sums[part].sum()) / count if count else float("nan") for name, sums in self._sums.items()}


def best(scores: Mapping[str, Metrics]) -> str:
    """The name of the forecaster with the lowest mean squared error."""
    return min(scores, key=lambda name: scores[name]["mse"])
