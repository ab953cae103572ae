from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.card import Card, InputSpec, OutputSpec
from model.evaluation.intervals import DECILES, Calibration, IntervalScores, naive_calibration
from model.evaluation.metrics import covered, crps, pinball, winkler
from model.windows import WindowData

MakeData = Callable[..., WindowData]
HOUR = 3_600_000


def card(horizon: int = 2, seq_len: int = 8) -> Card:
    return Card(
        name="m", input=InputSpec(seq_len=seq_len), output=OutputSpec(horizon=horizon), arch="naive", trained_until=0
    )


def calibration(*errors: float) -> Calibration:
    return Calibration.of(np.array(errors)[:, None, None], np.ones((len(errors), 1)))


def test_scores_of_intervals_match_values_computed_by_hand() -> None:
    lower, upper, actual = np.array([1.0, 1.0, 1.0, 1.0]), np.array([3.0, 3.0, 3.0, 3.0]), np.array([0.5, 1, 3, 4])
    assert covered(lower, upper, actual).tolist() == [False, True, True, False]
    assert winkler(lower, upper, actual, 0.8) == pytest.approx([2 + 10 * 0.5, 2, 2, 2 + 10 * 1])
    assert pinball(np.array([2.0, 2.0]), 0.9, np.array([5.0, 1.0])) == pytest.approx([2.7, 0.1])
    quantiles = np.array([[1.0, 2.0, 4.0]])
    losses = [0.25 * 2, 0.5 * 1, 0.25 * 1]
    assert crps(quantiles, (0.25, 0.5, 0.75), np.array([3.0])) == pytest.approx([2 * sum(losses) / 3])


def test_crps_from_deciles_is_near_that_of_a_normal_distribution() -> None:
    deciles = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0, 0.2533, 0.5244, 0.8416, 1.2816])
    actual = np.random.default_rng(0).normal(size=20_000)
    assert crps(np.broadcast_to(deciles, (20_000, 9)), DECILES, actual).mean() == pytest.approx(
        1 / np.sqrt(np.pi), rel=0.1
    )


def test_a_bound_is_the_conformal_quantile_of_the_sizes_of_errors_times_the_window_s_scale() -> None:
    nine = calibration(1, -2, 3, -4, 5, -6, 7, -8, 9)
    lower, upper = nine.bounds(np.array([[[100.0]], [[1.0]]]), np.array([[1.0], [0.5]]), 0.8, (False,))
    assert (lower[:, 0, 0].tolist(), upper[:, 0, 0].tolist()) == ([92.0, -3.0], [108.0, 5.0]), "the 8th of 9"
    lower, _ = nine.bounds(np.array([[[1.0]]]), np.ones((1, 1)), 0.9, (True,))
    assert lower.tolist() == [[[0.0]]], "the 9th of 9, and no less than zero"
    assert np.isnan(nine.bounds(np.zeros((1, 1, 1)), np.ones((1, 1)), 0.91, (True,))).all(), "needs ten"


@given(st.integers(0, 40), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(0, 2**32))
def test_intervals_cover_what_is_exchangeable_with_their_calibration(count: int, coverage: float, seed: int) -> None:
    errors = np.random.default_rng(seed).standard_t(3, size=count + 1)
    inside = []
    for place in range(count + 1):
        others = calibration(*np.delete(errors, place)) if count else calibration(np.nan)
        lower, upper = others.bounds(np.zeros((1, 1, 1)), np.ones((1, 1)), coverage, (False,))
        inside.append(bool(np.isnan(lower).all() or lower[0, 0, 0] <= errors[place] <= upper[0, 0, 0]))
    assert np.mean(inside) >= coverage - 1e-9


def test_naive_forecasts_are_calibrated_on_what_they_see_and_nothing_later(make_data: MakeData) -> None:
    values = np.random.default_rng(0).normal(size=60)
    data = make_data(values, np.arange(5.0), seq_len=8)
    found = naive_calibration(data, np.arange(65), card(), 4, before=50 * HOUR)
    first, second = found.errors[:, 0]
    assert (np.isfinite(first).sum(), np.isfinite(second).sum()) == (49 + 4, 48 + 3)
    last_value = naive_calibration(data, np.arange(65), card(), 4, np.full(65, 2), before=50 * HOUR)
    errors = np.sort(last_value.errors[0, 0] * last_value.typical)
    repeated = np.sort(np.r_[np.diff(values[:50]), np.ones(4)])
    assert errors[: len(repeated)] == pytest.approx(repeated), (
        "two steps hold no season of four, and are too few to scale"
    )


def test_interval_scores_are_those_of_observed_values_in_z_scores(make_data: MakeData) -> None:
    data = make_data(np.tile([1.0, 3.0], 20), seq_len=8)
    ends = np.array([10, 20])
    forecast, actual = np.zeros((2, 2, 1)), np.array([[[4.0], [9.0]], [[-6.0], [0.0]]])
    observed = np.array([[[True], [True]], [[True], [False]]])
    nine = Calibration.of(np.arange(-9.0, 0)[:, None, None].repeat(2, 1), np.ones((9, 1)))
    scores = IntervalScores(nine, card(), np.array([[2.0]]))
    scores.add(data, ends, forecast, actual, observed)
    assert scores.overall()["80"] == pytest.approx(
        {"coverage": 2 / 3, "width": 16 / 2, "winkler": (16 + 16 + 26) / 3 / 2}
    )
    assert scores.overall()["90"]["coverage"] == 1
    assert scores.by_step() == {"80": [1.0, 0.0], "90": [1.0, 1.0]}
    assert scores.missing == 0
    deciles = [-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0]
    by_hand = [crps(np.array([deciles]), DECILES, np.array([value]))[0] / 2 for value in (4.0, 9.0, -6.0)]
    assert scores.crps == pytest.approx(np.mean(by_hand))
    none = IntervalScores(calibration(1, 2, 3), card(1), np.array([[2.0]]))
    none.add(data, ends, forecast[:, :1], actual[:, :1], observed[:, :1])
    assert none.missing == 2 * 2
    assert np.isnan(none.overall()["90"]["winkler"])
    assert np.isnan(none.crps)
