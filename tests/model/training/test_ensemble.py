import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.card import Card, InputSpec, OutputSpec
from model.networks.forecast import build_network
from model.networks.layers import Calendar
from model.seasons import calendar_cycles, step_length
from model.training.ensemble import MANY, recipe, weigh
from model.training.forecasting import ForecastConfig, forecast_card


@given(seed=st.integers(0, 2**32 - 1), members=st.integers(1, 5))
def test_ensemble_error_is_at_most_the_mean_error_of_its_members(seed: int, members: int) -> None:
    numbers = np.random.default_rng(seed)
    errors = numbers.normal(size=(members, 50)) * numbers.uniform(0.5, 2, (members, 1))
    weights = weigh(errors)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert ((weights @ errors) ** 2).mean() <= weights @ (errors**2).mean(axis=1) * (1 + 1e-9)
    assert ((weights == 0) | (weights >= 0.03)).all()


def test_weights_combine_opposite_errors_and_drop_a_useless_member() -> None:
    error = np.array([1.0, -2.0, 3.0])
    assert weigh(np.stack([error, -error])).tolist() == [0.5, 0.5]
    assert weigh(np.stack([error, error, 9 * error]))[2] == 0
    assert weigh(np.stack([9 * error, 0 * error])).tolist() == [0.0, 1.0]


def test_recipe_has_a_calendar_for_cycles_longer_than_a_window() -> None:
    inputs, outputs = InputSpec(seq_len=24, freq="1d"), OutputSpec(horizon=6)
    config = ForecastConfig()
    for years, wanted in ((1, []), (3, ["year"])):
        card = forecast_card(inputs, outputs, config, "m", 365 * years)
        assert [each["calendar"] for each in card.members if "calendar" in each] == wanted
        assert card.input.inputs == (("x", "step") if wanted else ("x",))
    shorter = msgspec.structs.replace(inputs, seq_len=13)
    assert forecast_card(shorter, outputs, config, "m", 999).members[1]["calendar"] == "week,year"
    assert forecast_card(inputs, outputs, config, "m").input.inputs == ("x",)
    for freq in (None, "1y"):
        plain = msgspec.structs.replace(inputs, freq=freq)
        assert forecast_card(plain, outputs, config, "m", 9999).input.inputs == ("x",)


def test_recipe_has_one_lstm_per_location_for_many_windows() -> None:
    inputs, outputs, network = InputSpec(seq_len=48, freq="1h"), OutputSpec(horizon=24), {"hidden": 8}
    all_, few = (recipe(inputs, outputs, network, windows=windows) for windows in (MANY - 1, MANY))
    assert [each["location"] for each in few if each["arch"] == "segment"] == ["last", "mean", "season"]
    assert [each for each in all_ if each in few] == list(few)
    assert [each for each in few if each["arch"] != "segment"] == [each for each in all_ if each["arch"] != "segment"]


@pytest.mark.parametrize(
    ("freq", "ts", "cycles"),
    [("1h", 1234, ["day", "week", "year"]), ("3mo", 7, ["year"]), ("1w", 3, ["year"]), ("7m", 9, ["day", "week"])],
)
def test_calendar_features_are_periodic(freq: str, ts: int, cycles: list[str]) -> None:
    calendar, step = Calendar(freq, cycles), torch.tensor([[ts]])
    waves = calendar(step)
    assert waves.shape == (1, 1, 6 * len(cycles))
    assert float(waves.abs().max()) <= 1
    for place, cycle in enumerate(cycles[:2]):
        length = calendar_cycles(freq)[cycle]
        if length % step_length(freq) == 0:
            mine = slice(6 * place, 6 * place + 6)
            again = calendar(step + 5 * length // step_length(freq))[..., mine]
            torch.testing.assert_close(again, waves[..., mine], atol=1e-5, rtol=0)
    assert float((calendar(step + 1) - waves).abs().max()) > 1e-6


@pytest.mark.parametrize(
    ("freq", "seq_len", "wanted"),
    [
        ("1h", 720, {"looks": {360, 180}, "lags": {24}, "skips": {24, 168}, "segment": 24}),
        ("1h", 96, {"looks": {48}, "lags": {24}, "skips": {24}, "segment": 24}),
        ("1mo", 36, {"looks": set(), "lags": {12}, "skips": {12}, "segment": 12}),
        ("7m", 500, {"looks": {250, 125}, "lags": set(), "skips": set(), "segment": 6}),
        (None, 4, {"looks": {2}, "lags": set(), "skips": set(), "segment": 1}),
    ],
)
def test_recipe_depends_on_frequency_and_window_length(
    freq: str | None, seq_len: int, wanted: dict[str, object]
) -> None:
    inputs, outputs = InputSpec(seq_len=seq_len, freq=freq), OutputSpec(horizon=6)
    networks = recipe(inputs, outputs, {"hidden": 8, "layers": 1, "dropout": 0.1})
    card = Card(name="m", arch="blend", input=inputs, output=outputs, members=networks, trained_until=0)
    assert build_network(card)(torch.randn(3, seq_len, 1)).shape == (3, 6, 1)
    found = {f"{name}s": {each[name] for each in networks if name in each} for name in ("look", "lag", "skip")}
    assert found | {"segment": networks[0]["segment"]} == wanted
