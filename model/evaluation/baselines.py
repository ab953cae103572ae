"""Naive forecasts: the baselines that a model must beat, and the fallback in serving; in numpy."""

from collections.abc import Sequence

import numpy as np

from model.evaluation.metrics import ErrorScale, Scores
from model.evaluation.splits import chunks, run_starts, targets
from model.seasons import seasonal_lags
from model.windows import Floats, Rows, WindowData


def seasonal_naive(values: Floats, ends: Rows, first: Rows, horizon: int, lag: int) -> Floats:
    """The values, (T,O) or (T,), one season earlier, for the `horizon` steps after each end row: (N,K,O) or (N,K).

    The season is `lag` rows; steps more than a season ahead repeat the last season. Where the row one season earlier
    lies before `first` (N,), the first row of the window's run, the end row's value is repeated instead. With lag 1
    this is the last-value forecast.
    """
    ahead = np.arange(1, horizon + 1)
    rows = ends[:, None] + ahead - lag * -(-ahead // lag)
    return np.asarray(values[np.where(rows < first[:, None], ends[:, None], rows)])


def baselines(
    data: WindowData, ends: Rows, horizon: int, columns: Sequence[int], freq: str | None
) -> dict[str, Floats]:
    """Every naive forecast (N,K,O) from these windows' origins: `last`, and one for each season of `freq`."""
    values, first = data.values[:, list(columns)], run_starts(data, ends)
    lags = {"last": 1, **seasonal_lags(freq)}
    return {name: seasonal_naive(values, ends, first, horizon, lag) for name, lag in lags.items()}


def naive_scores(
    data: WindowData, ends: Rows, horizon: int, columns: Sequence[int], freq: str | None, scale: ErrorScale
) -> dict[str, Scores]:
    """Each naive forecast's scores over these windows."""
    scores: dict[str, Scores] = {}
    for part in chunks(ends):
        actual, observed = targets(data, part, horizon, columns)
        for name, forecasts in baselines(data, part, horizon, columns, freq).items():
            scores.setdefault(name, Scores(scale, horizon)).add(data.series[part], forecasts, actual, observed)
    return scores
