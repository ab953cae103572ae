from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.baselines import baselines, naive_lags, naive_scores, seasonal_naive
from model.evaluation.metrics import ErrorScale, mse, series_scale
from model.evaluation.splits import last_share, split, targets
from model.windows import WindowData

MakeData = Callable[..., WindowData]


@given(end=st.integers(0, 60), first=st.integers(0, 60), horizon=st.integers(1, 30), lag=st.integers(1, 40))
def test_seasonal_naive_uses_no_values_after_the_origin(end: int, first: int, horizon: int, lag: int) -> None:
    first = min(first, end)
    rows = np.arange(100.0)[:, None]
    used = seasonal_naive(rows, np.array([end]), np.array([first]), horizon, lag)[0, :, 0]
    assert used.max() <= end
    assert used.min() >= first
    ahead = end + np.arange(1, horizon + 1)
    seasonal = used != end
    assert ((ahead - used)[seasonal] % lag == 0).all()
    assert ((ahead - used)[seasonal] < lag + horizon).all()


def test_naive_forecast_stays_within_its_run_and_series(make_data: MakeData) -> None:
    data = make_data(np.arange(100.0), np.arange(1000.0, 1100.0), seq_len=5, breaks=[50])
    made = baselines(data, np.array([49, 54, 99, 130]), 3, [0], {"last": 1, "day": 24, "week": 168})
    assert made["last"][:, 0, 0].tolist() == [49, 54, 99, 1030]
    assert made["day"][:, :, 0].tolist() == [[26, 27, 28], [54, 54, 54], [76, 77, 78], [1007, 1008, 1009]]
    assert made["week"][:, 0, 0].tolist() == [49, 54, 99, 1030]


def test_naive_scores_are_independent_of_chunking_and_weight_targets_equally(make_data: MakeData) -> None:
    noise = np.random.default_rng(0).normal(0, 1, 6000)
    data = make_data(noise, 1e6 * noise, seq_len=5, holes=[70, 71])
    ends = split(data, 4, last_share(data, 0.2, 4)).train
    scale = series_scale(data, [0], 2**62)
    assert scale[1] == pytest.approx(1e6 * scale[0], rel=1e-3)
    actual, observed = targets(data, ends, 4, [0])
    whole = baselines(data, ends, 4, [0], {"day": 24})["day"]
    expected = mse(whole, actual, scale[data.series[ends]][:, None], observed)
    found = naive_scores(data, ends, 4, [0], {"day": 24}, ErrorScale(scale, scale))["day"]
    assert found.overall()["mse"] == pytest.approx(expected)
    assert expected == pytest.approx(2, rel=0.1)


@given(past=st.integers(0, 60), horizon=st.integers(1, 30), lag=st.integers(2, 40))
def test_a_season_is_a_baseline_where_its_forecast_differs_from_the_last_value(
    make_data: MakeData, past: int, horizon: int, lag: int
) -> None:
    data = make_data(np.arange(61.0), seq_len=5)
    ends = np.array([past])
    lags = naive_lags(data, ends, horizon, {"season": lag})
    made = baselines(data, ends, horizon, [0], {"last": 1, "season": lag})
    assert ("season" in lags) == bool((made["season"] != made["last"]).any())
