from itertools import chain
from math import atanh, log

import pytest
import torch
from cell import LSTM, ScalarCell, cell, detach_state
from torch import Tensor, nn

from model.networks.protocol import State
from tidecast.errors import ShapeError

E, H = 5, 16
every_depth = pytest.mark.parametrize("layers", [1, 2, 3])
Net = LSTM | nn.LSTM


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state_of(layers: int, batch: int) -> State:
    return draw(layers, batch, H, seed=1), draw(layers, batch, H, seed=2)


def pair(layers: int) -> tuple[LSTM, nn.LSTM]:
    torch.manual_seed(3)
    own, torchs = LSTM(E, H, layers), nn.LSTM(E, H, layers, batch_first=True)
    own.load_state_dict(torchs.state_dict())
    return own, torchs


def flat(result: tuple[Tensor, State]) -> tuple[Tensor, Tensor, Tensor]:
    out, (h, c) = result
    return out, h, c


def gradients(net: Net, x: Tensor, state: State) -> dict[str, Tensor]:
    """Of a random linear combination of all outputs and the final state."""
    leaves = {"x": x, "h_0": state[0], "c_0": state[1]}
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()} | dict(net.named_parameters())
    results = flat(net(leaves["x"], (leaves["h_0"], leaves["c_0"])))
    shares = [draw(*result.shape, seed=6 + number) for number, result in enumerate(results)]
    return dict(zip(leaves, torch.autograd.grad(results, list(leaves.values()), shares), strict=True))


def largest_gap(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).detach().abs().max())


@every_depth
@pytest.mark.parametrize(("batch", "steps"), [(4, 9), (1, 9), (4, 1)])
@pytest.mark.parametrize("stateful", [True, False], ids=["from a state", "from zeros"])
def test_forward_matches_torch(layers: int, batch: int, steps: int, stateful: bool) -> None:
    own, torchs = pair(layers)
    x, state = draw(batch, steps, E), state_of(layers, batch) if stateful else None
    for ours, theirs in zip(flat(own(x, state)), flat(torchs(x, state)), strict=True):
        assert largest_gap(ours, theirs) <= 1e-6


@every_depth
def test_gradients_match_torch(layers: int) -> None:
    own, torchs = pair(layers)
    inputs = draw(4, 9, E), state_of(layers, 4)
    ours, theirs = gradients(own, *inputs), gradients(torchs, *inputs)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0.1, name
        assert largest_gap(ours[name], gradient) <= 1e-5, name


def test_one_step_matches_lstm_cell() -> None:
    torchs, x, state = nn.LSTMCell(E, H), draw(4, E), (draw(4, H, seed=1), draw(4, H, seed=2))
    weights = (torchs.weight_ih, torchs.weight_hh, torchs.bias_ih, torchs.bias_hh)
    for ours, theirs in zip(cell(x, state, weights), torchs(x, state), strict=True):
        assert largest_gap(ours, theirs) <= 1e-6


@every_depth
def test_initialization_matches_torch_and_state_dicts_are_interchangeable(layers: int) -> None:
    torch.manual_seed(4)
    own = LSTM(E, H, layers)
    torch.manual_seed(4)
    torchs = nn.LSTM(E, H, layers, batch_first=True)
    assert list(own.state_dict()) == list(torchs.state_dict())
    torch.testing.assert_close(dict(own.state_dict()), dict(torchs.state_dict()), rtol=0, atol=0)
    torchs.load_state_dict(LSTM(E, H, layers).state_dict())
    own.load_state_dict(torchs.state_dict())
    torch.testing.assert_close(dict(own.state_dict()), dict(torchs.state_dict()), rtol=0, atol=0)


def test_two_layers_of_100_with_20_inputs_match_torch() -> None:
    own, torchs = LSTM(20, 100, 2), nn.LSTM(20, 100, 2, batch_first=True)
    assert sum(weight.numel() for weight in own.parameters()) == 129_600
    torchs.load_state_dict(own.state_dict())
    for ours, theirs in zip(flat(own(draw(64, 8, 20))), flat(torchs(draw(64, 8, 20))), strict=True):
        assert largest_gap(ours, theirs) <= 1e-6


@every_depth
def test_chunks_with_carried_state_match_one_pass(layers: int) -> None:
    own, x, state = pair(layers)[0], draw(4, 9, E), state_of(layers, 4)
    whole, carried, outs = own(x, state), state, []
    for chunk in (x[:, :3], x[:, 3:4], x[:, 4:]):
        out, carried = own(chunk, carried)
        outs.append(out)
    for one, many in zip(flat(whole), (torch.cat(outs, dim=1), *carried), strict=True):
        assert largest_gap(many, one) <= 1e-6


def test_the_initial_state_is_not_modified() -> None:
    own, state = pair(2)[0], state_of(2, 4)
    own(draw(4, 9, E), state)[0].sum().backward()
    for part, before in zip(state, state_of(2, 4), strict=True):
        assert torch.equal(part, before)


@pytest.mark.parametrize("part", [0, 1])
def test_gradients_flow_from_the_final_to_the_initial_state(part: int) -> None:
    own, (h, c) = pair(2)[0], state_of(2, 4)
    _, end = own(draw(4, 9, E), (h.requires_grad_(), c.requires_grad_()))
    end[part].sum().backward()
    assert h.grad is not None
    assert c.grad is not None
    assert h.grad.abs().amax(dim=(1, 2)).min() > 0
    assert c.grad.abs().amax(dim=(1, 2)).min() > 0


@pytest.mark.parametrize("detach", [True, False])
def test_a_detached_state_stops_the_gradient_between_chunks(detach: bool) -> None:
    own, first = pair(2)[0], draw(4, 9, E).requires_grad_()
    _, end = own(first)
    own(draw(4, 3, E, seed=5), detach_state(end) if detach else end)[0].sum().backward()
    assert (first.grad is None) == detach


def test_detach_state_keeps_the_values_and_the_original_attached() -> None:
    _, end = pair(2)[0](draw(4, 9, E))
    for part, original in zip(detach_state(end), end, strict=True):
        assert torch.equal(part, original)
        assert not part.requires_grad
        assert original.requires_grad


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.float64), ("cpu", torch.bfloat16), ("meta", torch.float32)]
)
def test_device_and_dtype_are_those_of_the_input(device: str, dtype: torch.dtype) -> None:
    own = LSTM(E, H, 2).to(device, dtype)
    for part in flat(own(draw(4, 9, E).to(device, dtype))):
        assert (part.device.type, part.dtype) == (device, dtype)


@pytest.mark.parametrize(
    ("h", "c"),
    [((2, 1, H), (2, 1, H)), ((2, 4, H), (2, 4, 1)), ((2, 1, H), (2, 4, H)), ((3, 4, H), (3, 4, H)), ((4, H), (4, H))],
)
def test_a_state_of_another_shape_raises_shape_error(h: tuple[int, ...], c: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"^state .* must be \(2, 4, 16\) each$"):
        LSTM(E, H, 2)(draw(4, 9, E), (draw(*h), draw(*c)))


def scalar_cell(seed: int) -> ScalarCell:
    return ScalarCell(*torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist())


@pytest.mark.parametrize("seed", range(10))
def test_the_scalar_cell_matches_an_lstm_of_size_one(seed: int) -> None:
    scalar, xs = scalar_cell(seed), [0.5, 0.6, -0.7, 8.0, 0.9]
    steps, torchs, own = scalar.run(xs, -0.3, 1.2), scalar.to_lstm(), LSTM(1, 1).double()
    own.load_state_dict(torchs.state_dict())
    x = torch.tensor(xs, dtype=torch.float64).view(1, -1, 1)
    state = torch.full((1, 1, 1), -0.3, dtype=x.dtype), torch.full((1, 1, 1), 1.2, dtype=x.dtype)
    for out, (h, c) in (torchs(x, state), own(x, state)):
        assert out.flatten().tolist() == pytest.approx([step.h for step in steps], rel=0, abs=1e-12)
        assert (h.item(), c.item()) == pytest.approx(steps[-1][:2], rel=0, abs=1e-12)


def logit(p: float) -> float:
    return log(p / (1 - p))


def test_the_scalar_cell_reproduces_the_documents_step() -> None:
    """The document prints the states of one step, not its random weights: the biases here are fitted to the states.

    The states determine the gates f and o, and the product of i and g; i = .8 is a free choice.
    """
    x, h, c = 0.5, -0.5617438418718841, -0.8221542907288696
    w1, w2, w3, w4, w5, w6, w7, w8 = weights = (0.3, -1.1, 0.7, 0.4, -0.6, 0.9, 1.3, -0.2)
    b1 = logit(0.4541219) - w1 * x - w2 * h
    b2 = atanh(-0.8195503) - w3 * x - w4 * h
    b3 = logit(0.8) - w5 * x - w6 * h
    b4 = logit(0.9351025) - w7 * x - w8 * h
    step = ScalarCell(*weights, b1, b2, b3, b4).step(x, h, c)
    assert (step.f, step.o) == pytest.approx((0.45412, 0.93510), rel=0, abs=5e-6)
    assert (step.kept, step.c, step.h) == pytest.approx((-0.37335828, -1.02899851, -0.72330776), rel=0, abs=1e-6)


def test_saturated_gates_do_not_overflow() -> None:
    huge = ScalarCell(*[1e4] * 8, *[0.0] * 4)
    steps = chain(huge.run([1.0], 0.0, 2.0), huge.run([-1.0], 0.0, 2.0))
    assert [step[2:6] for step in steps] == [(1.0, 1.0, 1.0, 1.0), (0.0, 0.0, -1.0, 0.0)]
