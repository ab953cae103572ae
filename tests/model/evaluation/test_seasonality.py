"""The season that is found in data: there where a period is, not where there is none, and the calendar's first."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.seasonality import find_season
from model.windows import WindowData

MakeData = Callable[..., WindowData]
EVER = 2**62


def waves(size: int, period: float, noise: float = 0.0, seed: int = 0) -> npt.NDArray[np.float64]:
    numbers = np.random.default_rng(seed)
    phase = numbers.uniform(0, np.pi)
    return np.asarray(np.sin(np.arange(size) * 2 * np.pi / period + phase) + noise * numbers.normal(size=size))


@given(
    period=st.integers(4, 300),
    noise=st.floats(0, 0.5),
    seed=st.integers(0, 99),
    scale=st.floats(1e-6, 1e6),
    slope=st.floats(-0.01, 0.01),
)
def test_a_noisy_period_is_found_at_any_level_scale_and_trend(
    make_data: MakeData, period: int, noise: float, seed: int, scale: float, slope: float
) -> None:
    values = scale * (waves(8 * period + 100, period, noise, seed) + slope * np.arange(8 * period + 100))
    season = find_season(make_data(values, seq_len=5), 0, EVER)
    assert season == pytest.approx(period, rel=0.05, abs=1), "within a step or a twentieth"
    assert season == find_season(make_data(values, seq_len=5), 0, EVER), "again the same"


@pytest.mark.parametrize("size", [60, 400, 3000])
def test_noise_a_random_walk_and_a_constant_have_no_season(make_data: MakeData, size: int) -> None:
    numbers = np.random.default_rng(0)
    found = [
        find_season(make_data(make(numbers.normal(size=size)), seq_len=5), 0, EVER)
        for make in (np.asarray, np.cumsum, np.zeros_like)
        for _ in range(10)
    ]
    assert sum(each is not None for each in found) <= 1


def test_the_period_of_twelve_machines_is_found_through_gaps_and_a_spike(make_data: MakeData) -> None:
    machines = [place + 10.0**place * waves(2000, 120, 0.1, seed=place) for place in range(12)]
    machines[3][500] = 1e12
    data = make_data(*machines, seq_len=5, holes=list(range(100, 140)))
    assert find_season(data, 0, EVER) == 120


def test_a_season_of_the_calendar_is_preferred_unless_the_data_repeats_itself_better_elsewhere(
    make_data: MakeData,
) -> None:
    def found(period: float) -> int | None:
        return find_season(make_data(waves(2000, period, 0.2), seq_len=5), 0, EVER, (24, 168))

    assert found(12) is None, "twice a day is as good as once"
    assert found(24) is None
    assert found(37) == 37


def test_only_what_lies_before_the_cut_is_looked_at(make_data: MakeData) -> None:
    values = np.concatenate([waves(1500, 30), waves(1500, 50)])
    data = make_data(values, seq_len=5)
    assert find_season(data, 0, int(data.ts[1500])) == 30


def test_too_few_rows_have_no_season(make_data: MakeData) -> None:
    data = make_data(waves(200, 30), seq_len=5)
    assert find_season(data, 0, int(data.ts[0])) is None
    assert find_season(data, 0, int(data.ts[70])) is None, "fewer than three periods"


def test_a_day_with_nights_and_weekends_off_is_no_fault(make_data: MakeData) -> None:
    hours = np.arange(24 * 7 * 20)
    off = (hours % 24 < 8) | (hours % 24 >= 18) | (hours // 24 % 7 >= 5)
    data = make_data(50 + 20 * np.sin(2 * np.pi * hours / 24), seq_len=5, holes=np.flatnonzero(off).tolist())
    assert find_season(data, 0, EVER, (24, 168)) is None, "a season of the calendar"
