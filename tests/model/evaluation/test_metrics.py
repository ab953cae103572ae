from collections.abc import Callable

import numpy as np
import pytest

from model.evaluation.metrics import METRICS, ErrorScale, Scores, best, error_scale, mse, series_scale, window_mse
from model.windows import WindowData
from tidecast.errors import ShapeError

MakeData = Callable[..., WindowData]


def test_metrics_match_values_computed_by_hand() -> None:
    by = ErrorScale(np.array([[2.0], [10.0]]), np.array([[4.0], [5.0]]))
    scores = Scores(by, 2)
    forecast, actual = np.array([[[3.0], [0.0]], [[10.0], [7.0]]]), np.array([[[1.0], [0.0]], [[0.0], [9.0]]])
    observed = np.array([[[True], [True]], [[True], [False]]])
    scores.add(np.array([0, 1]), forecast, actual, observed)
    assert scores.overall() == pytest.approx({"mse": 2 / 3, "mae": 2 / 3, "mase": 2.5 / 3, "smape": 100.0})
    assert scores.by_step()["mse"] == pytest.approx([1.0, 0.0])
    assert scores.by_series(["a", "b"])["a"] == pytest.approx({"mse": 0.5, "mae": 0.5, "mase": 0.25, "smape": 50.0})
    assert set(scores.by_series(["a", "b"])["b"]) == set(METRICS)


def test_scores_accumulate_over_batches_and_are_nan_without_targets() -> None:
    numbers = np.random.default_rng(0)
    by = ErrorScale(np.ones((3, 2)), np.ones((3, 2)))
    series = numbers.integers(0, 2, 50)
    forecast, actual = numbers.normal(size=(2, 50, 4, 2))
    observed = numbers.random((50, 4, 2)) < 0.7
    whole, parts = Scores(by, 4), Scores(by, 4)
    whole.add(series, forecast, actual, observed)
    for part in np.array_split(np.arange(50), 7):
        parts.add(series[part], forecast[part], actual[part], observed[part])
    assert parts.overall() == pytest.approx(whole.overall())
    assert whole.overall()["mse"] == pytest.approx(((forecast - actual)[observed] ** 2).mean())
    assert set(whole.by_series(["a", "b", "c"])) == {"a", "b"}
    assert np.isnan(Scores(by, 4).overall()["mse"])
    assert best({"a": {"mse": 2.0}, "b": {"mse": 1.0}}) == "b"


def test_mase_is_scaled_by_the_seasonal_naive_in_training(make_data: MakeData) -> None:
    ramp = np.arange(60.0)
    data = make_data(ramp, np.tile([1.0, 5.0], 30), 3 * np.r_[ramp[:48], 1e6 * ramp[:12]], seq_len=5, breaks=[30])
    by = error_scale(data, [0], 48 * 3_600_000, 2, np.array([[7.0], [8.0], [9.0]]))
    assert by.naive[:, 0].tolist() == [2.0, 8.0, 6.0], "the second repeats exactly, the third is not seen after the cut"
    assert error_scale(data, [0], 0, 2, np.full((3, 1), 7.0)).naive.tolist() == [[7.0]] * 3


def test_mse_is_in_z_scores_over_observed_targets() -> None:
    made, actual = np.array([[1.0, 2.0], [3.0, 9.0]]), np.array([[1.0, 4.0], [7.0, np.nan]])
    assert mse(made, actual, 2.0, np.array([[True, True], [True, False]])) == pytest.approx((0 + 1 + 4) / 3)
    assert np.isnan(mse(made[:0], actual[:0], 2.0))
    with pytest.raises(ShapeError):
        mse(made, actual[:, :1], 2.0)


def test_series_scale_uses_the_training_part_and_is_never_zero(make_data: MakeData) -> None:
    wave = np.tile([1.0, 3.0], 50)
    data = make_data(np.r_[wave, 1e6 * wave], np.full(200, 0.1), 5 * wave, seq_len=5)
    assert series_scale(data, [0], 100 * 3_600_000)[:, 0].tolist() == [1.0, 3.0, 5.0]
    assert series_scale(make_data(np.full(50, 7.0), seq_len=5), [0], 2**62).tolist() == [[1.0]]


def test_window_mse_is_over_observed_targets() -> None:
    forecast, actual = np.array([[[1.0], [2.0]], [[3.0], [9.0]]]), np.array([[[1.0], [4.0]], [[np.nan], [np.nan]]])
    lost = window_mse(forecast, actual, np.isfinite(actual), np.array([[2.0], [1.0]]))
    assert lost == pytest.approx([0.5, np.nan], nan_ok=True)
