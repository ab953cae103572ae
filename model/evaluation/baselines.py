"""Naive forecasts: the baselines that a model must beat, and the fallback in serving; in numpy."""

from collections.abc import Mapping, Sequence

import numpy as np

from model.evaluation.metrics import ErrorScale, Scores
from model.evaluation.splits import chunks, run_starts, targets
from model.windows import Floats, Rows, WindowData


def seasonal_naive(values: Floats, ends: Rows, first: Rows, horizon: int | Rows, lag: int) -> Floats:
    """The values, (T,O) or (T,), one season earlier, for the `horizon` steps after each end row: (N,K,O) or (N,K).

    For some of the steps only, `horizon` lists them, the first being 1.

    The season is `lag` rows; steps more than a season ahead repeat the last season. Where the row one season earlier
    lies before `first` (N,), the first row of the window's run, the end row's value is repeated instead. With lag 1
    this is the last-value forecast.
    """
    ahead = np.arange(1, horizon + 1) if isinstance(horizon, int) else horizon
    rows = ends[:, None] + ahead - lag * -(-ahead // lag)
    return np.asarray(values[np.where(rows < first[:, None], ends[:, None], rows)])


def naive_of_windows(x: Floats, length: Rows, columns: Sequence[int], horizon: int | Rows, lag: int) -> Floats:
    """The seasonal naive forecasts (B,K,O) of these columns of windows x (B,S,F), the last `length` (B,) of whose steps
    are the series' own.
    """
    count, steps = x.shape[:2]
    ends = np.arange(1, count + 1) * steps - 1
    values = x[:, :, list(columns)].reshape(count * steps, len(columns))
    return seasonal_naive(values, ends, ends + 1 - length, horizon, lag)


def naive_lags(data: WindowData, ends: Rows, horizon: int, lags: Mapping[str, int]) -> dict[str, int]:
    """The lags of the naive forecasts from these windows' origins: `last`, and those of the seasons by name.

    A season longer than the history before every origin is left out: its forecast would be the last value too.
    """
    past = int((ends - run_starts(data, ends)).max(initial=0))
    return {"last": 1, **{name: lag for name, lag in lags.items() if lag - min(horizon, lag - 1) <= past}}


def baselines(
    data: WindowData, ends: Rows, horizon: int, columns: Sequence[int], lags: Mapping[str, int]
) -> dict[str, Floats]:
    """The naive forecast (N,K,O) of each lag from these windows' origins."""
    values, first = data.values[:, list(columns)], run_starts(data, ends)
    return {name: seasonal_naive(values, ends, first, horizon, lag) for name, lag in lags.items()}


def naive_scores(
    data: WindowData, ends: Rows, horizon: int, columns: Sequence[int], lags: Mapping[str, int], scale: ErrorScale
) -> dict[str, Scores]:
    """The scores over these windows of each naive forecast: the last value, and by each season of `lags`."""
    scores: dict[str, Scores] = {}
    lags = naive_lags(data, ends, horizon, lags)
    for part in chunks(ends):
        actual, observed = targets(data, part, horizon, columns)
        for name, forecasts in baselines(data, part, horizon, columns, lags).items():
            scores.setdefault(name, Scores(scale, horizon)).add(data.series[part], forecasts, actual, observed)
    return scores
