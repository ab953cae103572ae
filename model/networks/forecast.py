"""Forecasting networks: raw windows (B,S,F) to raw forecasts (B,K,O), with the normalisation in the graph.

`lstm` reads a window step by step. `segment` reads it in non-overlapping segments and decodes all segments of the
horizon at once from the same state: SegRNN's idea (Lin et al. 2023, arXiv:2308.11200), with an LSTM cell. `linear` and
`naive` are their baselines: one weight from each step of a window to each of the horizon, or none.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model.card import Card, Setting
from model.levels import UNMOVED, Levels
from model.networks.layers import (
    LSTM,
    Calendar,
    LinearNetwork,
    NaiveNetwork,
    Network,
    SeasonalSkip,
    SegmentNetwork,
    StepNetwork,
)
from model.networks.normalization import FutureCovariates, Normalisation, Pooled
from model.networks.protocol import Batch, State
from tidecast.errors import TrainingConfigError

ARCHITECTURES = ("lstm", "segment", "linear", "naive")
LOCATIONS = ("last", "mean", "season")
MAX_SEGMENT = 48
MIN_SEGMENTS = 4


class EnsembleMember(nn.Module):
    """One network with its normalisation: x (B,S,F) float32 in raw units -> forecast (B,K,O) in raw units.

    Reads the last `look` steps of the window. With a skip connection the LSTM's head is initialised to zero, so that it
    learns the residual.
    """

    columns: Tensor

    def __init__(
        self,
        normalisation: Normalisation,
        network: Network,
        columns: list[int],
        skip: SeasonalSkip | None,
        look: int,
        ahead: FutureCovariates | None = None,
    ) -> None:
        super().__init__()
        self.look, self.ahead = look, ahead
        self.normalisation, self.network, self.skip = normalisation, network, skip
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        if skip is not None and isinstance(network, LSTM):
            nn.init.zeros_(network.head.weight)
            nn.init.zeros_(network.head.bias)

    def forward(self, x: Tensor, step: Tensor | None = None, future: Tensor | None = None) -> Tensor:
        """(B,S,F) -> (B,K,O), raw units."""
        z_BSF, loc_B1F, scale_B1F = self.normalisation(x[:, -self.look :])
        z_BKO = self.network(z_BSF, step, None if self.ahead is None else self.ahead(future, loc_B1F))
        if self.skip is not None:
            z_BKO = z_BKO + self.skip(z_BSF.index_select(2, self.columns))
        forecast: Tensor = z_BKO * scale_B1F.index_select(2, self.columns) + loc_B1F.index_select(2, self.columns)
        return forecast


class ForecastNetwork(nn.Module):
    """The weighted mean of its members' forecasts: x (B,S,F) float32 in raw units -> forecast (B,K,O) in raw units.

    `clipped` (O,) are the targets whose forecasts are clipped at zero; empty: none. `known` are the feature indices of
    the future covariates, `levels` what raw windows are moved by before they are cast to float32.
    """

    weights: Tensor
    clips: Tensor

    def __init__(
        self,
        members: Sequence[EnsembleMember],
        weights: Sequence[float],
        clipped: Sequence[bool] = (),
        known: Sequence[int] = (),
        levels: Levels = UNMOVED,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.clipped, self.known, self.horizon = tuple(clipped), list(known), members[0].normalisation.horizon
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", torch.tensor(weights))
        self.register_buffer("clips", torch.tensor(self.clipped), persistent=False)

    def forward(self, x: Tensor, step: Tensor | None = None, future: Tensor | None = None) -> Tensor:
        """(B,S,F), and (B,) and (B,K,C) if the members take them -> (B,K,O), raw units."""
        forecasts = [member(x, step, future) for member in self.members]
        mean = forecasts[0] if len(forecasts) == 1 else (torch.stack(forecasts, dim=-1) * self.weights).sum(dim=-1)
        if not any(self.clipped):
            return mean
        return torch.relu(mean) if all(self.clipped) else torch.where(self.clips, torch.relu(mean), mean)

    def outputs(self, batch: Batch, state: State | None) -> tuple[Tensor, State | None]:
        """The forecasts (B,K,O); windows carry no state."""
        return self(batch.x, batch.step, batch.future), state


def default_segment(steps: int, horizon: int) -> int:
    """The longest divisor of the horizon, up to 48 steps, that gives the LSTM at least four segments."""
    longest = min(MAX_SEGMENT, max(1, steps // MIN_SEGMENTS))
    return max(length for length in range(1, longest + 1) if horizon % length == 0)


def build_network(card: Card, pooled: Pooled | None = None) -> ForecastNetwork:
    """The network that a card describes, with fresh weights.

    `pooled` may be omitted if weights are loaded, which include it. Raises ConfigError naming the wrong setting.
    """
    members = [build_member(card, each, pooled) for each in card.networks]
    weights = [1 / len(members)] * len(members)
    return ForecastNetwork(members, weights, card.output.clipped, card.known_columns, Levels.of(card))


def build_member(card: Card, settings: Mapping[str, Setting], pooled: Pooled | None = None) -> EnsembleMember:
    """One network of a card, with fresh weights.

    `settings` are arch and location; lag for location `season`; optionally look, the steps read, by default the whole
    window. For an LSTM also hidden, layers, dropout and optionally skip, the lag of a seasonal skip connection; for
    arch `segment` also segment and optionally calendar, its cycles separated by commas. Raises ConfigError naming the
    wrong setting.
    """
    arch, inputs, horizon = str(settings["arch"]), card.input, card.output.horizon
    if arch not in ARCHITECTURES:
        raise TrainingConfigError(f"arch: {arch!r} is none of {ARCHITECTURES}")
    location = str(settings["location"])
    look, lag = int(settings.get("look", inputs.seq_len)), int(settings.get("lag", 0)) if location == "season" else 0
    if not 2 <= look <= inputs.seq_len:
        raise TrainingConfigError(f"look: {look} is not in a window of {inputs.seq_len} steps")
    if not 0 <= lag < look - 1 or (location == "season" and not lag):
        raise TrainingConfigError(f"lag: {lag} is not a season within {look} steps")
    if "observed" in inputs.inputs:
        raise TrainingConfigError(f"inputs: {inputs.inputs}, these networks take x, step for a calendar, and future")
    if location not in LOCATIONS:
        raise TrainingConfigError(f"location: {location!r} is none of {LOCATIONS}")
    steps = look - lag
    network = _network(card, settings, steps)
    pooled = pooled or Pooled.unknown(len(inputs.features))
    season = int(settings.get("skip", 0))
    if not 0 <= season <= steps:
        raise TrainingConfigError(f"skip: {season} is not a season within {steps} steps")
    skip = SeasonalSkip(steps, horizon, season) if season else None
    ahead = FutureCovariates(card.known_columns, pooled) if inputs.known and isinstance(network, LSTM) else None
    return EnsembleMember(
        Normalisation(location, pooled.floor, horizon, lag), network, card.target_columns, skip, look, ahead
    )


def _network(card: Card, settings: Mapping[str, Setting], steps: int) -> Network:
    horizon, columns = card.output.horizon, card.target_columns
    if settings["arch"] == "linear":
        return LinearNetwork(columns, steps, horizon)
    if settings["arch"] == "naive":
        return NaiveNetwork(len(columns), horizon)
    shape = (len(card.input.features), horizon, len(columns))
    hidden, layers, dropout = int(settings["hidden"]), int(settings["layers"]), float(settings["dropout"])
    ahead = 2 * len(card.input.known)
    if settings["arch"] == "lstm":
        return StepNetwork(*shape, hidden, layers, dropout, ahead)
    segment = int(settings.get("segment", 1))
    if not 1 <= segment <= steps:
        raise TrainingConfigError(f"segment: {segment} is not within {steps} steps")
    cycles = str(settings["calendar"]).split(",") if "calendar" in settings else []
    if cycles and "step" not in card.input.inputs:
        raise TrainingConfigError("calendar: needs the input step")
    calendar = Calendar(card.input.freq, cycles) if cycles else None
    return SegmentNetwork(*shape, hidden, layers, dropout, segment, calendar, ahead)
