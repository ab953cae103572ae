from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.card import Card, InputSpec, OutputSpec
from model.networks.forecast import ForecastNetwork, build_network, default_segment
from model.networks.normalization import Pooled
from model.training.forecast_config import ForecastConfig, forecast_card

Arch = Literal["lstm", "segment"]
Location = Literal["last", "mean", "season"]
FEATURES, TARGETS = ("a", "b", "c"), ("c", "a")
both_archs = pytest.mark.parametrize("arch", ["lstm", "segment"])
every_location = pytest.mark.parametrize("location", ["last", "mean", "season"])


def network(arch: Arch, location: Location = "mean", layers: int = 1, floor: float = 1e-3) -> ForecastNetwork:
    torch.manual_seed(1)
    inputs = InputSpec(seq_len=24, features=FEATURES, freq="6h")
    outputs = OutputSpec(horizon=6, targets=TARGETS)
    config = ForecastConfig(arch=arch, hidden=8, layers=layers, location=location)
    return build_network(
        forecast_card(inputs, outputs, config, "m"), Pooled(torch.full((3,), floor), torch.zeros(3), torch.ones(3))
    ).eval()


def windows(count: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 24, 3, generator=torch.Generator().manual_seed(seed))


def card(inputs: InputSpec, arch: str, **settings: float | str) -> Card:
    return Card(
        name="m", input=inputs, output=OutputSpec(horizon=6), arch=arch, hyperparameters=settings, trained_until=0
    )


@both_archs
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("count", [1, 5])
def test_windows_become_horizons_of_the_targets(arch: Arch, layers: int, count: int) -> None:
    assert network(arch, layers=layers)(windows(count)).shape == (count, 6, 2)


@both_archs
@every_location
def test_gradients_reach_every_weight(arch: Arch, location: Location) -> None:
    net = network(arch, location, layers=2).train()
    net(windows()).square().sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@both_archs
def test_forecasts_depend_on_their_own_window_only(arch: Arch) -> None:
    net, x = network(arch), windows(6)
    torch.testing.assert_close(net(x)[2:4], net(x[2:4]))


@both_archs
@every_location
@given(scale=st.floats(0.01, 1e6), shift=st.floats(-100, 100))
@settings(max_examples=20)
def test_a_scaled_and_shifted_window_has_a_scaled_and_shifted_forecast(
    arch: Arch, location: Location, scale: float, shift: float
) -> None:
    net, x = network(arch, location), windows()
    with torch.inference_mode():
        torch.testing.assert_close(net((x + shift) * scale), (net(x) + shift) * scale, rtol=1e-3, atol=1e-3 * scale)


@both_archs
@every_location
@pytest.mark.parametrize("value", [0.0, 0.1, -273.15, 1e30, 1e-30, -3e37])
def test_a_constant_window_forecasts_about_the_constant(arch: Arch, location: Location, value: float) -> None:
    forecast = network(arch, location, floor=1e-3)(torch.full((2, 24, 3), value))
    torch.testing.assert_close(forecast, torch.full_like(forecast, value), rtol=1e-5, atol=1e-2)


@both_archs
@every_location
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_tiny_and_huge_units_change_nothing(arch: Arch, location: Location, unit: float) -> None:
    net, x = network(arch, location, floor=1e-37), windows()
    torch.testing.assert_close(net(x * unit) / unit, net(x), rtol=1e-4, atol=1e-5)


@both_archs
def test_without_its_head_a_seasonal_network_is_the_seasonal_naive(arch: Arch) -> None:
    net, x = network(arch, "season"), windows()
    torch.nn.init.zeros_(net.members[0].network.head.weight)  # type: ignore[union-attr,arg-type]
    torch.nn.init.zeros_(net.members[0].network.head.bias)  # type: ignore[union-attr,arg-type]
    day = x[:, [20, 21, 22, 23, 20, 21]]
    torch.testing.assert_close(net(x), day[:, :, [2, 0]])


@pytest.mark.parametrize(
    ("seq_len", "horizon", "segment"), [(336, 48, 48), (96, 24, 24), (48, 48, 12), (720, 96, 48), (7, 3, 1), (2, 2, 1)]
)
def test_the_default_segment_divides_both(seq_len: int, horizon: int, segment: int) -> None:
    assert default_segment(seq_len, horizon) == segment


@pytest.mark.parametrize(
    ("field", "arch", "changed"),
    [
        ("segment", "segment", {"segment": 0}),
        ("segment", "segment", {"segment": 25}),
        ("skip", "lstm", {"skip": 25}),
        ("arch", "gru", {}),
        ("location", "lstm", {"location": "median"}),
        ("lag", "lstm", {"location": "season"}),
        ("lag", "lstm", {"location": "season", "lag": 23}),
    ],
)
def test_a_setting_that_cannot_be_is_named(field: str, arch: str, changed: dict[str, int | str]) -> None:
    given = {"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last", **changed}
    with pytest.raises(ValueError, match=f"^{field}: "):
        build_network(card(InputSpec(seq_len=24), arch, **given))


def test_inputs_that_no_network_takes_are_refused() -> None:
    given: dict[str, int | float | str] = {"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last"}
    with pytest.raises(ValueError, match=r"^inputs: "):
        build_network(card(InputSpec(seq_len=24, inputs=("x", "observed")), "lstm", **given))
    calendar = given | {"segment": 6, "calendar": "day"}
    with pytest.raises(ValueError, match=r"^calendar: needs the input step"):
        build_network(card(InputSpec(seq_len=24, freq="1h"), "segment", **calendar))
    with pytest.raises(ValueError, match=r"^calendar: 'day' is no cycle of steps of 1d"):
        build_network(card(InputSpec(seq_len=24, freq="1d", inputs=("x", "step")), "segment", **calendar))
