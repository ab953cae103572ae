from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.backtest import Cuts, baselines, held_out, last_share, mse, naive_scores, series_scale, split, targets
from model.naive import seasonal_lags, seasonal_naive
from model.scores import Yardstick
from model.series import WindowData
from pipeline.windows import WindowConfig, sliding_windows
from tidecast.errors import ShapeError

MakeData = Callable[..., WindowData]


@pytest.mark.parametrize(
    ("freq", "lags"),
    [
        ("30m", {"day": 48, "week": 336}),
        ("1h", {"day": 24, "week": 168}),
        ("1d", {"week": 7}),
        ("250ms", {"day": 345_600, "week": 2_419_200}),
        ("7h", {"week": 24}),
        ("1w", {"year": 52}),
        ("1mo", {"year": 12}),
        ("5mo", {}),
        ("1y", {}),
        (None, {}),
    ],
)
def test_seasons_are_whole_numbers_of_steps(freq: str | None, lags: dict[str, int]) -> None:
    assert seasonal_lags(freq) == lags


@given(end=st.integers(0, 60), first=st.integers(0, 60), horizon=st.integers(1, 30), lag=st.integers(1, 40))
def test_the_seasonal_naive_knows_nothing_after_the_origin(end: int, first: int, horizon: int, lag: int) -> None:
    first = min(first, end)
    rows = np.arange(100.0)[:, None]
    used = seasonal_naive(rows, np.array([end]), np.array([first]), horizon, lag)[0, :, 0]
    assert used.max() <= end
    assert used.min() >= first
    ahead = end + np.arange(1, horizon + 1)
    seasonal = used != end
    assert ((ahead - used)[seasonal] % lag == 0).all()
    assert ((ahead - used)[seasonal] < lag + horizon).all()


def test_a_naive_forecast_never_reaches_over_a_break_or_into_another_series(make_data: MakeData) -> None:
    data = make_data(np.arange(100.0), np.arange(1000.0, 1100.0), seq_len=5, breaks=[50])
    made = baselines(data, np.array([49, 54, 99, 130]), 3, [0], "1h")
    assert made["last"][:, 0, 0].tolist() == [49, 54, 99, 1030]
    assert made["day"][:, :, 0].tolist() == [[26, 27, 28], [54, 54, 54], [76, 77, 78], [1007, 1008, 1009]]
    assert made["week"][:, 0, 0].tolist() == [49, 54, 99, 1030]


def test_errors_are_in_z_scores_over_what_was_observed() -> None:
    made, actual = np.array([[1.0, 2.0], [3.0, 9.0]]), np.array([[1.0, 4.0], [7.0, np.nan]])
    assert mse(made, actual, 2.0, np.array([[True, True], [True, False]])) == pytest.approx((0 + 1 + 4) / 3)
    assert np.isnan(mse(made[:0], actual[:0], 2.0))
    with pytest.raises(ShapeError):
        mse(made, actual[:, :1], 2.0)


def test_scores_do_not_depend_on_chunks_and_weigh_series_alike(make_data: MakeData) -> None:
    noise = np.random.default_rng(0).normal(0, 1, 6000)
    data = make_data(noise, 1e6 * noise, seq_len=5, holes=[70, 71])
    ends = split(data, 4, last_share(data, 0.2, 4)).train
    scale = series_scale(data, [0], 2**62)
    assert scale[1] == pytest.approx(1e6 * scale[0], rel=1e-3)
    actual, observed = targets(data, ends, 4, [0])
    whole = baselines(data, ends, 4, [0], "1h")["day"]
    expected = mse(whole, actual, scale[data.series[ends]][:, None], observed)
    found = naive_scores(data, ends, 4, [0], "1h", Yardstick(scale, scale))["day"]
    assert found.overall()["mse"] == pytest.approx(expected)
    assert expected == pytest.approx(2, rel=0.1)


def test_a_scale_is_the_training_part_s_and_never_zero(make_data: MakeData) -> None:
    wave = np.tile([1.0, 3.0], 50)
    data = make_data(np.r_[wave, 1e6 * wave], np.full(200, 0.1), 5 * wave, seq_len=5)
    assert series_scale(data, [0], 100 * 3_600_000)[:, 0].tolist() == [1.0, 3.0, 5.0]
    assert series_scale(make_data(np.full(50, 7.0), seq_len=5), [0], 2**62).tolist() == [[1.0]]


@given(steps=st.integers(1, 10_000), fraction=st.floats(0.01, 0.99), horizon=st.integers(0, 500))
def test_a_share_validates_and_of_a_short_series_more(steps: int, fraction: float, horizon: int) -> None:
    count = held_out(steps, fraction, horizon)
    assert max(1, round(steps * fraction)) <= count <= steps
    assert count in {1, round(steps * fraction), 2 * horizon, steps // 4}


lengths = st.lists(st.integers(1, 120), min_size=1, max_size=4)


@given(
    lengths=lengths,
    horizon=st.integers(1, 8),
    cuts=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    breaks=st.sets(st.integers(1, 100)),
)
def test_no_target_crosses_a_cut(
    make_data: MakeData, lengths: list[int], horizon: int, cuts: tuple[int, int], breaks: set[int]
) -> None:
    rows = sum(lengths)
    data = make_data(*[np.zeros(n) for n in lengths], seq_len=4, breaks=[row for row in breaks if row < rows])
    validation, test = (3_600_000 * step for step in sorted(cuts))
    try:
        parts = split(data, horizon, Cuts(validation, test))
    except ValueError as error:
        assert "too few windows" in str(error)  # noqa: PT017
        return
    ahead = np.arange(1, horizon + 1)
    bounds = ((parts.train, 0, validation), (parts.validation, validation, test), (parts.test, test, 2**62))
    for ends, begin, end in bounds:
        times = data.ts[ends[:, None] + ahead]
        assert ((times >= begin) & (times < end)).all()
        assert (data.run[ends[:, None] + ahead] == data.run[ends][:, None]).all()


def test_too_few_events_say_how_many_are_needed(make_data: MakeData) -> None:
    data = make_data(np.zeros(39), seq_len=24)
    assert len(split(data, 6, last_share(data, 0.2, 6)).validation) == 4, "a quarter of a series so short"
    nothing = sliding_windows([], np.zeros(0, np.int64), np.zeros((0, 1)), WindowConfig(seq_len=24))
    with pytest.raises(ValueError, match=r"^too few windows: 0 to train on"):
        split(nothing, 6, last_share(nothing, 0.2, 6))
    with pytest.raises(ValueError, match=r"needs 30 events without a break to train on .* and 6 more"):
        split(data, 6, last_share(data, 0.8, 6))
