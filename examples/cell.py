"""The LSTM from scratch: a scalar cell, gate by gate, and stacked layers with fused gates; tested against nn.LSTM.

The gates are in nn.LSTM's order: input i, forget f, candidate g, output o.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, sqrt, tanh
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from model.networks.protocol import State
from tidecast.errors import ShapeError

Weights: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""w_ih (4H,E), w_hh (4H,H), b_ih (4H,), b_hh (4H,); H rows per gate."""

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class ScalarCellStep(NamedTuple):
    """The state after one step, and the gates that led to it."""

    h: float
    c: float
    i: float
    f: float
    g: float
    o: float
    kept: float
    """f * c, the part of the old cell state that passes the forget gate."""


@dataclass(frozen=True, slots=True)
class ScalarCell:
    """An LSTM with one feature and hidden size 1, in plain floats; the weights are numbered as in E. Bujokas's text.

    Forget gate w1, w2, b1; candidate w3, w4, b2; input gate w5, w6, b3; output gate w7, w8, b4; x's weight comes first.
    """

    w1: float
    w2: float
    w3: float
    w4: float
    w5: float
    w6: float
    w7: float
    w8: float
    b1: float
    b2: float
    b3: float
    b4: float

    def step(self, x: float, h: float, c: float) -> ScalarCellStep:
        """The state (h, c) after the input x; all gates read the old h."""
        f = _sigmoid(self.w1 * x + self.w2 * h + self.b1)
        g = tanh(self.w3 * x + self.w4 * h + self.b2)
        i = _sigmoid(self.w5 * x + self.w6 * h + self.b3)
        o = _sigmoid(self.w7 * x + self.w8 * h + self.b4)
        kept = f * c
        c = kept + i * g
        return ScalarCellStep(h=o * tanh(c), c=c, i=i, f=f, g=g, o=o, kept=kept)

    def run(self, xs: Iterable[float], h: float, c: float) -> list[ScalarCellStep]:
        """One step for each x, starting from the state (h, c)."""
        steps = []
        for x in xs:
            steps.append(self.step(x, h, c))
            h, c, *_ = steps[-1]
        return steps

    def to_lstm(self) -> nn.LSTM:
        """The equivalent nn.LSTM(1, 1), batch first, float64."""
        weights = {
            "weight_ih_l0": [[self.w5], [self.w1], [self.w3], [self.w7]],
            "weight_hh_l0": [[self.w6], [self.w2], [self.w4], [self.w8]],
            "bias_ih_l0": [self.b3, self.b1, self.b2, self.b4],
            "bias_hh_l0": [0.0] * 4,
        }
        lstm = nn.LSTM(1, 1, batch_first=True, dtype=torch.float64)
        lstm.load_state_dict({name: torch.tensor(rows, dtype=torch.float64) for name, rows in weights.items()})
        return lstm


def _sigmoid(x: float) -> float:
    power = exp(-abs(x))  # cannot overflow
    return (1.0 if x >= 0 else power) / (1.0 + power)


def cell(x_BE: Tensor, state: State, weights: Weights) -> State:
    """One step of one layer, like nn.LSTMCell: the state (B,H), (B,H) after the input x (B,E)."""
    (h_BH, c_BH), (w_ih, w_hh, b_ih, b_hh) = state, weights
    i, f, g, o = (linear(x_BE, w_ih, b_ih) + linear(h_BH, w_hh, b_hh)).chunk(4, dim=1)
    c_BH = f.sigmoid() * c_BH + i.sigmoid() * g.tanh()
    return o.sigmoid() * c_BH.tanh(), c_BH


class LSTM(nn.Module):
    """A drop-in nn.LSTM(inputs, hidden, layers, batch_first=True): same parameter names, shapes and initialization.

    state_dicts are interchangeable. The text it follows (I. Dabbura, 2022) has the sequence first, x (S,B,E); here the
    batch comes first, as everywhere in this project.
    """

    def __init__(self, inputs: int, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.hidden, self.layers = hidden, layers
        bound = 1 / sqrt(hidden)
        for layer in range(layers):
            shapes = ((4 * hidden, hidden if layer else inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
            for name, shape in zip(PARAMETERS, shapes, strict=True):
                weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
                self.register_parameter(f"{name}_l{layer}", weight)

    def forward(self, x_BSE: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x (B,S,E) -> the last layer's h at every step (B,S,H), and every layer's h and c after the last step (L,B,H).

        Starts from `state`, which is not modified, or from zeros. Gradients flow into `state`: see `detach_state`.
        Raises ShapeError unless h and c are both (L,B,H): nothing is broadcast.
        """
        batch, _, _ = x_BSE.shape
        shape = (self.layers, batch, self.hidden)
        h_LBH, c_LBH = state or (x_BSE.new_zeros(shape), x_BSE.new_zeros(shape))
        if h_LBH.shape != shape or c_LBH.shape != shape:
            raise ShapeError(f"state {tuple(h_LBH.shape)} and {tuple(c_LBH.shape)} must be {shape} each")
        out, states = x_BSE, []
        for layer in range(self.layers):
            out, last = self._layer(layer, out, (h_LBH[layer], c_LBH[layer]))
            states.append(last)
        hs, cs = zip(*states, strict=True)
        return out, (torch.stack(hs), torch.stack(cs))

    def _layer(self, layer: int, x_BSE: Tensor, state: State) -> tuple[Tensor, State]:
        w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{name}_l{layer}") for name in PARAMETERS)
        outputs = []
        for x_BE in x_BSE.unbind(dim=1):
            state = cell(x_BE, state, (w_ih, w_hh, b_ih, b_hh))
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state


def detach_state(state: State) -> State:
    """The state without its autograd history, for truncated backpropagation through time."""
    return state[0].detach(), state[1].detach()
