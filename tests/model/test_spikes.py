"""Spikes: a few readings far from all others are winsorised, shifts of level and bursts are not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.card import InputSpec, OutputSpec
from model.evaluation.metrics import ErrorScale, Scores
from model.spikes import few, winsorised, without_spikes
from model.spikes import spans as greatest_ranges
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import fit, forecast

FAR_TIME = 2**62
STEPS = 48


def ordinary(rows: int = 4, seed: int = 0) -> Any:
    return 100 + np.random.default_rng(seed).normal(0, 5, (rows, STEPS, 1))


def spans(size: float = 60.0) -> Any:
    return np.array([size])


@given(st.sampled_from([1e9, -1e9, 5e3, -9999.0]), st.sets(st.integers(0, STEPS - 1), min_size=1, max_size=5))
def test_a_few_far_readings_count_as_the_nearest_of_the_others(far: float, places: set[int]) -> None:
    x = ordinary()
    x[1, list(places)] = far
    made, rest = winsorised(x, spans()), [place for place in range(STEPS) if place not in places]
    assert made[[0, 2, 3]].tobytes() == x[[0, 2, 3]].tobytes()
    assert made[1, rest].tobytes() == x[1, rest].tobytes()
    others = x[1, rest]
    assert others.min() <= made[1].min() <= made[1].max() <= others.max()


@given(st.floats(-1e9, 1e9), st.integers(few(STEPS) + 1, STEPS - few(STEPS) - 1))
def test_a_shift_of_level_is_kept(size: float, since: int) -> None:
    x = ordinary()
    x[:, since:] += size
    assert winsorised(x, spans()) is x


@given(st.floats(-60, 60), st.integers(0, STEPS - 1))
def test_what_training_saw_is_kept(size: float, place: int) -> None:
    x = np.full((1, STEPS, 1), 100.0)
    x[0, place] += size
    assert winsorised(x, spans()) is x


@given(st.integers(0, 9), st.integers(0, 3))
def test_a_window_is_winsorised_alike_in_any_batch(seed: int, row: int) -> None:
    x = ordinary(seed=seed)
    x[:, seed] = np.array([[1.0], [1e6], [-1e6], [1e12]])
    assert winsorised(x, spans())[row].tobytes() == winsorised(x[row : row + 1], spans())[0].tobytes()


def test_short_windows_and_models_without_spans_are_left_alone() -> None:
    x = ordinary()
    x[:, -1] = 1e9
    assert winsorised(x, np.array(np.inf)) is x
    assert (
        winsorised(x[:, -7:], spans()) is x[:, -7:] or winsorised(x[:, -7:], spans()).tobytes() == x[:, -7:].tobytes()
    )


@pytest.mark.parametrize(
    ("values", "spikes"),
    [
        (np.where(np.arange(400) == 300, 1e9, 100 + np.arange(400) % 24), {"s0": 1}),
        (np.where(np.arange(400) == 300, -9999.0, 7.0), {"s0": 1}),
        (np.where(np.arange(400) < 200, 5.0, 1e9), {}),
        (np.where(np.arange(400) % 40 == 0, 50.0, 0.0), {}),
        (np.zeros(400), {}),
        (np.arange(400.0) ** 3, {}),
    ],
    ids=["spike", "sentinel", "shift", "bursts", "zero", "trend"],
)
def test_series_are_winsorised_in_training(values: Any, spikes: Any, make_data: Any) -> None:
    data = make_data(values)
    kept, counts = without_spikes(data, [0], FAR_TIME)
    assert counts == spikes
    assert (kept is data.values) == (not spikes)
    assert int((kept != data.values).sum()) == sum(spikes.values())


def test_series_too_short_to_be_judged_do_not_hide_the_spike_of_a_constant_one(make_data: Any) -> None:
    flat = np.where(np.arange(400) == 300, -9999.0, 7.0)
    _, counts = without_spikes(make_data(flat, *(np.arange(5.0) + n for n in range(3)), seq_len=2), [0], FAR_TIME)
    assert counts == {"s0": 1}


def test_a_series_too_short_to_be_judged_does_not_allow_the_others_a_spike(make_data: Any) -> None:
    long, short = np.arange(400.0) % 24, np.array([0.0, 1e9, 1.0])
    assert greatest_ranges(make_data(long, short, seq_len=2), FAR_TIME).tolist() == [23.0]
    assert greatest_ranges(make_data(short, seq_len=2), FAR_TIME).tolist() == [1e9]


def test_nothing_after_the_cut_is_touched(make_data: Any) -> None:
    data = make_data(np.where(np.arange(400) == 300, 1e9, 100.0 + np.arange(400) % 24))
    assert without_spikes(data, [0], int(data.ts[300])) == (data.values, {})


def test_one_spike_spoils_neither_its_series_nor_the_others(make_data: Any) -> None:
    hours = np.arange(500)
    good, spiky = (100 + 20 * np.sin(hours * np.pi / 12) + np.random.default_rng(n).normal(0, 1, 500) for n in (0, 1))
    spiky[480] = 1e9
    data = make_data(good, spiky, np.full(500, 7.0), np.zeros(500), good * 1e-6, seq_len=48)
    inputs, outputs = InputSpec(seq_len=48, freq="1h"), OutputSpec(horizon=6)
    fitted = fit(data, inputs, outputs, ForecastConfig(arch="linear"), "m")
    assert fitted.spikes == {"s1": 1}
    ends = np.flatnonzero(np.diff(data.series, append=-1))
    made = forecast(fitted.model, data, ends)[..., 0]
    for row, (level, near) in enumerate([(100, 30), (100, 30), (7, 0.1), (0, 0.1), (1e-4, 3e-5)]):
        assert np.abs(made[row] - level).max() < near
    raw = fit(data, inputs, outputs, ForecastConfig(arch="linear", winsorise=False), "m")
    assert (raw.spikes, raw.card.spans) == ({}, {})
    assert list(raw.worst) == ["s1"]
    assert raw.worst["s1"] > 0.9


def test_the_series_of_most_of_the_error_are_named() -> None:
    scores = Scores(ErrorScale(np.ones((4, 1)), np.ones((4, 1))), 2)
    actual = np.zeros((4, 2, 1))
    scores.add(np.arange(4), np.array([1.0, 10, 1, 1]).reshape(4, 1, 1) + actual, actual, actual == 0)
    assert scores.worst(list("abcd")) == {"b": pytest.approx(100 / 103)}
    even = Scores(ErrorScale(np.ones((4, 1)), np.ones((4, 1))), 2)
    even.add(np.arange(4), actual + 1, actual, actual == 0)
    assert even.worst(list("abcd")) == {}
