"""How forecasts are judged: errors in z-scores, MASE and sMAPE; in numpy.

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
"""Squared and absolute errors in z-scores, absolute ones in those of the seasonal naive in training, and 200 times the
absolute error over the sum of forecast and truth, both absolute."""
Metrics = dict[str, float]


def series_scale(data: WindowData, columns: Sequence[int], before: int) -> Reals:
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


def squared_error(forecast: Floats, actual: Floats, scale: Floats | float) -> Reals:
    """Each target's squared error in z-scores; `scale`, the standard deviation, broadcasts to the forecasts' shape."""
    error: Reals = ((forecast.astype(np.float64) - actual) / scale) ** 2
    return error


def mse(forecast: Floats, actual: Floats, scale: Floats | float, observed: Flags | None = None) -> float:
    """The mean squared error over all observed targets, in z-scores; nan if there are none.

    `forecast` and `actual` have one shape, such as (N,K) or (N,K,O); `scale`, the training part's standard deviation,
    broadcasts to it. Raises ShapeError for two shapes.
    """
    if forecast.shape != actual.shape:
        raise ShapeError(f"forecast {forecast.shape} and actual {actual.shape} must have one shape")
    error = squared_error(forecast, actual, scale)
    kept = error if observed is None else error[observed]
    return float(kept.mean()) if kept.size else float("nan")


def window_mse(forecast: Floats, actual: Floats, observed: Flags, scale: Reals) -> Reals:
    """Each window's mean squared error (N,) in z-scores; nan where nothing of its horizon was observed.

    Of forecasts and truth (N,K,O), what of it was observed, and each window's scale (N,O).
    """
    error = np.where(observed, squared_error(forecast, actual, scale[:, None]), 0.0)
    count = observed.sum(axis=(1, 2))
    lost: Reals = np.divide(error.sum(axis=(1, 2)), count, out=np.full(len(error), np.nan), where=count > 0)
    return lost


@dataclass(frozen=True, slots=True)
class ErrorScale:
    """What errors are divided by, (C,O) each, from the training part alone."""

    deviation: Reals
    """Standard deviations."""
    naive: Reals
    """Mean absolute errors of the seasonal naive, one step after the other."""


def error_scale(data: WindowData, columns: Sequence[int], before: int, lag: int, deviation: Reals) -> ErrorScale:
    """The scale of errors from the rows before a time (epoch milliseconds); `lag` is the season, 1 where there is none.

    A series whose season repeats exactly, or is not there, is measured by its standard deviation.
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
    """The errors of one forecaster; every observed target weighs the same."""

    def __init__(self, by: ErrorScale, horizon: int) -> None:
        self._by = by
        shape = (len(by.deviation), horizon, by.deviation.shape[1])
        self._sums = {metric: np.zeros(shape) for metric in METRICS}
        self._counts = np.zeros(shape)

    def add(
        self,
        series: npt.NDArray[np.integer],
        forecast: npt.NDArray[np.floating],
        actual: npt.NDArray[np.floating],
        observed: npt.NDArray[np.bool_],
    ) -> None:
        """Count N windows of the series (N,): forecast, truth, and which of it was observed, (N,K,O)."""
        assert forecast.shape == actual.shape == observed.shape
        truth = actual.astype(np.float64)
        error = np.where(observed, np.abs(forecast - truth), 0.0)
        deviation = self._by.deviation[series][:, None]
        size = np.where(observed, np.abs(forecast) + np.abs(truth), 0.0)
        errors = {
            "mse": np.where(observed, squared_error(forecast, truth, deviation), 0.0),
            "mae": error / deviation,
            "mase": error / self._by.naive[series][:, None],
            "smape": np.divide(200 * error, size, out=np.zeros_like(error), where=size > 0),
        }
        for metric, values in errors.items():
            np.add.at(self._sums[metric], series, values)
        np.add.at(self._counts, series, observed)

    def overall(self) -> Metrics:
        """Each metric over all that was counted; nan if nothing was."""
        return self._means(slice(None))

    def by_step(self) -> dict[str, list[float]]:
        """Each metric for each of the K steps ahead."""
        steps = [self._means((slice(None), step)) for step in range(self._counts.shape[1])]
        return {metric: [means[metric] for means in steps] for metric in METRICS}

    def by_series(self, names: Sequence[str]) -> dict[str, Metrics]:
        """Each metric for each series that was counted."""
        counted = self._counts.sum(axis=(1, 2)) > 0
        return {name: self._means(place) for place, name in enumerate(names) if counted[place]}

    def _means(self, part: int | slice | tuple[slice, int]) -> Metrics:
        count = float(self._counts[part].sum())
        return {name: float(sums[part].sum()) / count if count else float("nan") for name, sums in self._sums.items()}


def best(scores: Mapping[str, Metrics], metric: str = "mse") -> str:
    """The name of the one with the least error."""
    return min(scores, key=lambda name: scores[name][metric])
