"""The networks of series: raw windows (B,S,F) in, raw forecasts (B,K,O) out, the normalisation inside.

`lstm` reads a window step by step. `segment` reads it in non-overlapping segments and decodes all segments of the
horizon at once from the same state: SegRNN's idea (Lin et al. 2023, arXiv:2308.11200), with an LSTM cell.
"""

from collections.abc import Mapping
from math import gcd

import torch
from torch import Tensor, nn

from model.shapes import Batch, Core, Head, Select, State
from model.spec import InputSpec, OutputSpec, Setting

ARCHITECTURES = ("lstm", "segment")
LOCATIONS = ("last", "mean", "season")
MAX_SEGMENT = 48
MIN_SEGMENTS = 4


class Normalisation(nn.Module):
    """Takes a window's location and scale off, feature by feature; neither depends on anything but the window.

    The location is the window's last value, its mean, or, step by step, what was one season (`lag` steps) before; the
    window of differences is then that much shorter. The scale is its mean absolute deviation (no squares, so that
    neither 1e-30 nor 1e30 leaves float32), not below `floor` (F,), so that a flat window becomes zeros.
    """

    floor: Tensor

    def __init__(self, location: str, floor: Tensor, horizon: int, lag: int) -> None:
        super().__init__()
        self.location, self.horizon, self.lag = location, horizon, lag
        self.register_buffer("floor", floor)

    def forward(self, x_BSF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised window (B,S,F), the forecast's location (B,1,F) or (B,K,F), and its scale (B,1,F)."""
        if self.location == "season":
            differences_BSF = x_BSF[:, self.lag :] - x_BSF[:, : -self.lag]
            scale_B1F = self._scale(differences_BSF)
            return differences_BSF / scale_B1F, self._season_before(x_BSF), scale_B1F
        loc_B1F = x_BSF[:, -1:] if self.location == "last" else _mean(x_BSF)
        scale_B1F = self._scale(x_BSF)
        return (x_BSF - loc_B1F) / scale_B1F, loc_B1F, scale_B1F

    def _scale(self, x_BSF: Tensor) -> Tensor:
        return torch.maximum(_mean((x_BSF - _mean(x_BSF)).abs()), self.floor)

    def _season_before(self, x_BSF: Tensor) -> Tensor:
        season = x_BSF[:, -self.lag :]
        return season.repeat(1, -(-self.horizon // self.lag), 1)[:, : self.horizon]


def _mean(x_BSF: Tensor) -> Tensor:
    """(B,1,F). Divided before it is summed: no value of float32 makes it infinite."""
    return (x_BSF / x_BSF.shape[1]).sum(dim=1, keepdim=True)


class StepNetwork(nn.Module):
    """An LSTM over the steps; a linear layer makes the whole horizon of its last state."""

    def __init__(self, features: int, horizon: int, targets: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.horizon, self.targets = horizon, targets
        self.core = Core(features, hidden, layers, dropout)
        self.select = Select("last")
        self.dropout = nn.Dropout(dropout)
        self.head = Head(hidden, horizon * targets)

    def forward(self, z_BSF: Tensor) -> Tensor:
        """(B,S,F) -> (B,K,O)."""
        out_BSH, _ = self.core(z_BSF)
        rows: Tensor = self.head(self.dropout(self.select(out_BSH)))
        return rows.view(-1, self.horizon, self.targets)


class SegmentNetwork(nn.Module):
    """An LSTM over segments; then, from its state, one step for each segment of the horizon, told apart by position."""

    def __init__(
        self, features: int, horizon: int, targets: int, hidden: int, layers: int, dropout: float, segment: int
    ) -> None:
        super().__init__()
        self.width, self.horizon, self.targets = segment * features, horizon, targets
        self.embed = nn.Linear(self.width, hidden)
        self.core = Core(hidden, hidden, layers, dropout)
        self.position_MH = nn.Parameter(torch.randn(horizon // segment, hidden))
        self.select = Select("all")
        self.dropout = nn.Dropout(dropout)
        self.head = Head(hidden, segment * targets)

    def forward(self, z_BSF: Tensor) -> Tensor:
        """(B,S,F) -> (B,K,O)."""
        segments = z_BSF.reshape(z_BSF.shape[0], -1, self.width)
        _, (h_LBH, c_LBH) = self.core(torch.relu(self.embed(segments)))
        query = self.position_MH.repeat(z_BSF.shape[0], 1).unsqueeze(1)
        out, _ = self.core(query, (self._per_segment(h_LBH), self._per_segment(c_LBH)))
        forecast: Tensor = self.head(self.dropout(self.select(out)))
        return forecast.view(-1, self.horizon, self.targets)

    def _per_segment(self, state_LBH: Tensor) -> Tensor:
        layers, _, hidden = state_LBH.shape
        count = self.position_MH.shape[0]
        return state_LBH.unsqueeze(2).expand(-1, -1, count, -1).reshape(layers, -1, hidden)


class Forecaster(nn.Module):
    """Normalisation, a network, and back: x (B,S,F) float32 in raw units -> forecast (B,K,O) in raw units."""

    columns: Tensor

    def __init__(self, normalisation: Normalisation, network: nn.Module, columns: list[int]) -> None:
        super().__init__()
        self.normalisation, self.network = normalisation, network
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,S,F) -> (B,K,O), raw units."""
        z_BSF, loc_B1F, scale_B1F = self.normalisation(x)
        z_BKO = self.network(z_BSF)
        forecast: Tensor = z_BKO * scale_B1F.index_select(2, self.columns) + loc_B1F.index_select(2, self.columns)
        return forecast

    def outputs(self, batch: Batch, state: State | None) -> tuple[Tensor, State | None]:
        """The forecasts (B,K,O); no state goes from window to window."""
        return self(batch.x), state


def default_segment(seq_len: int, horizon: int) -> int:
    """The longest segment that divides both, up to 48 steps, and leaves the LSTM at least four of them to read."""
    shared = gcd(seq_len, horizon)
    longest = min(MAX_SEGMENT, max(1, seq_len // MIN_SEGMENTS))
    return max(length for length in range(1, longest + 1) if shared % length == 0)


def build(
    inputs: InputSpec, outputs: OutputSpec, arch: str, settings: Mapping[str, Setting], floor: Tensor | None = None
) -> Forecaster:
    """The network that a card describes, with fresh weights.

    `settings` are the card's hyperparameters: hidden, layers, dropout, location, lag for location `season`, and segment
    for arch `segment`.
    `floor` (F,) is the least scale of each feature; left out where weights are loaded, which hold it.
    Raises ValueError naming the setting that is wrong.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch: {arch!r} is none of {ARCHITECTURES}")
    features, columns = inputs.features, [inputs.features.index(name) for name in outputs.targets]
    location, segment = str(settings["location"]), int(settings.get("segment", 1))
    hidden, layers, dropout = int(settings["hidden"]), int(settings["layers"]), float(settings["dropout"])
    lag = int(settings.get("lag", 0)) if location == "season" else 0
    if not 0 <= lag < inputs.seq_len - 1 or (location == "season" and not lag):
        raise ValueError(f"lag: {lag} leaves nothing of a window of {inputs.seq_len} steps, or is no season")
    if inputs.inputs != ("x",):
        raise ValueError(f"inputs: {inputs.inputs}, these networks take x alone")
    if location not in LOCATIONS:
        raise ValueError(f"location: {location!r} is none of {LOCATIONS}")
    shape = (len(features), outputs.horizon, len(columns), hidden, layers, dropout)
    if arch == "lstm":
        network: nn.Module = StepNetwork(*shape)
    else:
        if segment < 1 or (inputs.seq_len - lag) % segment or outputs.horizon % segment:
            raise ValueError(
                f"segment: {segment} does not divide both seq_len {inputs.seq_len - lag} and horizon {outputs.horizon}"
            )
        network = SegmentNetwork(*shape, segment)
    floor = torch.ones(len(features)) if floor is None else floor
    return Forecaster(Normalisation(location, floor, outputs.horizon, lag), network, columns)
