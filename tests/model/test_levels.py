"""Levels: a window far from zero loses nothing on its way to float32, and an ordinary one is left alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.card import Card, InputSpec, OutputSpec
from model.evaluation.splits import targets
from model.levels import Levels
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import FittedForecaster, fit, forecast

BATCH, STEPS = 7, 12


def card(**fields: Any) -> Card:
    inputs = InputSpec(seq_len=STEPS, freq="1h", features=("load", "heat"), known=("heat",))
    output = OutputSpec(horizon=3, targets=("load",), **fields)
    return Card(name="m", input=inputs, output=output, arch="naive", floors={"load": 0.01}, trained_until=0)


def windows(level: float, seed: int = 0) -> Any:
    return level + np.random.default_rng(seed).normal(0, 5, (BATCH, STEPS, 2))


@given(st.floats(-1e12, 1e12), st.integers(0, 9))
def test_what_a_window_loses_is_small_beside_its_range(level: float, seed: int) -> None:
    x = windows(level, seed)
    lowered, shifts = Levels.of(card()).lowered({"x": x})
    assert lowered["x"].dtype == np.float32
    back = lowered["x"][..., :1] + (0 if shifts is None else shifts[:, None, :1])
    lost = np.abs(back - x[..., :1]).max(axis=1)
    assert (lost <= np.ptp(x[..., :1], axis=1) / 8192).all()


@given(st.floats(-1e12, 1e12), st.integers(0, 9), st.integers(0, BATCH - 1))
def test_a_window_is_moved_alike_in_any_batch(level: float, seed: int, row: int) -> None:
    levels, x = Levels.of(card()), windows(level, seed) * np.array([[[1.0], [1e3], [1e-3]] + [[1.0]] * 9])
    one, all_of_them = (levels.lowered({"x": part}) for part in (x[row : row + 1], x))
    assert one[0]["x"].tobytes() == all_of_them[0]["x"][row : row + 1].tobytes()
    alone = np.zeros(2) if one[1] is None else one[1][0]
    assert alone.tolist() == (np.zeros(2) if all_of_them[1] is None else all_of_them[1][row]).tolist()


@pytest.mark.parametrize("level", [0.0, 5.0, -80.0, 5000.0])
def test_an_ordinary_window_is_cast_as_before(level: float) -> None:
    lowered, shifts = Levels.of(card()).lowered({"x": windows(level)})
    assert shifts is None
    assert lowered["x"].tobytes() == windows(level).astype(np.float32).tobytes()


def test_its_neighbours_forecasts_keep_their_bits() -> None:
    levels, x = Levels.of(card()), windows(5)
    x[0] += 1e9
    _, shifts = levels.lowered({"x": x})
    made = np.full((BATCH, 3, 1), -0.0, np.float32)
    made[:, 1] = 0.1
    raised = levels.raised(made, shifts)
    assert raised[1:].astype(np.float32).tobytes() == made[1:].tobytes()
    assert abs(raised[0] - 1e9).max() < 1e4


def test_future_covariates_and_models_of_earlier_versions_are_not_moved() -> None:
    _, shifts = Levels.of(card()).lowered({"x": windows(3e9)})
    assert shifts is not None
    assert (shifts[:, 0] != 0).all()
    assert (shifts[:, 1] == 0).all()
    earlier = Card(name="m", input=card().input, output=card().output, arch="naive", trained_until=0)
    lowered, none = Levels.of(earlier).lowered({"x": windows(3e9)})
    assert none is None
    assert lowered["x"].tobytes() == windows(3e9).astype(np.float32).tobytes()


def test_a_forecast_is_clipped_where_zero_is_not_where_the_window_was_moved_to() -> None:
    levels, made = Levels.of(card(non_negative=True)), np.array([[[-3.0], [0.0], [3.0]]], np.float32)
    for level, expected in ((3e9, [3e9 - 3, 3e9, 3e9 + 3]), (-3e9, [0, 0, 0])):
        assert levels.raised(made, np.array([[level, 0.0]]))[0, :, 0].tolist() == expected


@pytest.fixture(scope="module")
def daily() -> Any:
    hours = np.arange(500)
    return np.round(20 * np.sin(hours * np.pi / 12) + np.random.default_rng(0).normal(0, 1, len(hours)), 1)


@pytest.mark.parametrize("arch", ["linear", "segment"])
@pytest.mark.parametrize("non_negative", [False, True])
def test_a_large_level_is_forecast_as_well_as_none(arch: Any, non_negative: bool, make_data: Any, daily: Any) -> None:
    near, far = (
        fitted_and_error(make_data(daily + level, seq_len=48), arch, non_negative) for level in (100.0, 3_000_000_000.0)
    )
    assert far == pytest.approx(near, rel=0.02)
    assert near < 0.1


def fitted_and_error(data: Any, arch: Any, non_negative: bool) -> float:
    inputs, outputs = InputSpec(seq_len=48, freq="1h"), OutputSpec(horizon=6, non_negative=non_negative)
    fitted: FittedForecaster = fit(data, inputs, outputs, ForecastConfig(arch=arch, epochs=50, hidden=16), "m")
    ends = fitted.split.validation
    actual, _ = targets(data, ends, 6, [0])
    error = float(np.square(forecast(fitted.model, data, ends) - actual).mean() / daily_variance(data))
    assert error == pytest.approx(fitted.card.metrics["validation_mse"], rel=0.1)
    return error


def daily_variance(data: Any) -> float:
    return float(np.var(data.values))
