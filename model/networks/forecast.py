"""The networks of series: raw windows (B,S,F) in, raw forecasts (B,K,O) out, the normalisation inside.

`lstm` reads a window step by step. `segment` reads it in non-overlapping segments and decodes all segments of the
horizon at once from the same state: SegRNN's idea (Lin et al. 2023, arXiv:2308.11200), with an LSTM cell. `linear` and
`naive` are what they have to add something to: one weight from each step of a window to each of the horizon, or none.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from model.card import Card, Setting
from model.networks.normalization import FutureCovariates, Normalisation, Pooled
from model.networks.protocol import Batch, Core, Head, Select, State
from model.seasons import calendar_cycles, step_length
from tidecast.errors import TrainingConfigError

ARCHITECTURES = ("lstm", "segment", "linear", "naive")
LOCATIONS = ("last", "mean", "season")
MAX_SEGMENT = 48
MIN_SEGMENTS = 4
HARMONICS = 3
"""Waves that tell a place in a cycle."""


class Dropout(nn.Module):
    """nn.Dropout with random numbers of its own: networks trained side by side would race for the process's."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.kept = 1 - share
        self._seed = int(torch.randint(2**62, ()))
        self._numbers: torch.Generator | None = None

    def forward(self, rows: Tensor) -> Tensor:
        """Any shape, and back."""
        if not self.training or self.kept == 1:
            return rows
        if self._numbers is None:
            self._numbers = torch.Generator(rows.device).manual_seed(self._seed)
        return rows * torch.empty_like(rows).bernoulli_(self.kept, generator=self._numbers) / self.kept


class Calendar(nn.Module):
    """Where in a day, a week and a year steps lie: sines and cosines of the grid's index.

    `cycles` are those of them that a `freq` step is at most half of. Raises ConfigError for any other.
    """

    def __init__(self, freq: str | None, cycles: Sequence[str]) -> None:
        super().__init__()
        lengths = calendar_cycles(freq)
        if unknown := sorted(set(cycles) - set(lengths)):
            raise TrainingConfigError(f"calendar: {unknown[0]!r} is no cycle of steps of {freq}")
        self.unit, self.lengths = step_length(freq), tuple(lengths[cycle] for cycle in cycles)
        self.width = 2 * HARMONICS * len(self.lengths)

    def forward(self, step_BM: Tensor) -> Tensor:
        """(B,M) int64 -> (B,M,width)."""
        turns = [torch.remainder(step_BM * self.unit, length).float() / length for length in self.lengths]
        angles = [2 * torch.pi * harmonic * turn for turn in turns for harmonic in range(1, HARMONICS + 1)]
        return torch.stack([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=-1)


class StepNetwork(nn.Module):
    """An LSTM over the steps; a linear layer makes the whole horizon of its last state, and of what is known of it."""

    def __init__(
        self, features: int, horizon: int, targets: int, hidden: int, layers: int, dropout: float, ahead: int = 0
    ) -> None:
        super().__init__()
        self.horizon, self.targets = horizon, targets
        self.core = Core(features, hidden, layers, dropout)
        self.select = Select("last")
        self.dropout = Dropout(dropout)
        self.head = Head(hidden + horizon * ahead, horizon * targets)

    def forward(self, z_BSF: Tensor, step_B: Tensor | None, ahead_BKA: Tensor | None) -> Tensor:
        """(B,S,F) and what is known ahead, (B,K,A), if anything is -> (B,K,O)."""
        out_BSH, _ = self.core(z_BSF)
        state_BH = self.dropout(self.select(out_BSH))
        known = state_BH if ahead_BKA is None else torch.cat([state_BH, ahead_BKA.flatten(1)], dim=1)
        rows: Tensor = self.head(known)
        return rows.view(-1, self.horizon, self.targets)


class SegmentNetwork(nn.Module):
    """An LSTM over segments; then, from its state, one step for each segment of the horizon, told apart by position.

    What is left of a window before its first whole segment is not read, what lies beyond the horizon not given. With
    a calendar each segment, read or given, is also told by where its first step lies in it; those given by what is
    known of their steps, A numbers each, too.
    """

    def __init__(
        self,
        features: int,
        horizon: int,
        targets: int,
        hidden: int,
        layers: int,
        dropout: float,
        segment: int,
        calendar: Calendar | None = None,
        ahead: int = 0,
    ) -> None:
        super().__init__()
        self.calendar = calendar
        if calendar is not None:
            self.past, self.coming = (nn.Linear(calendar.width, hidden, bias=False) for _ in range(2))
        self.segment, self.width, self.horizon, self.targets = segment, segment * features, horizon, targets
        self.embed = nn.Linear(self.width, hidden)
        self.core = Core(hidden, hidden, layers, dropout)
        self.position_MH = nn.Parameter(torch.randn(-(-horizon // segment), hidden))
        self.select = Select("all")
        self.dropout = Dropout(dropout)
        self.head = Head(hidden, segment * targets)
        if ahead:
            self.ahead = nn.Linear(segment * ahead, hidden, bias=False)

    def forward(self, z_BSF: Tensor, step_B: Tensor | None, ahead_BKA: Tensor | None) -> Tensor:
        """(B,S,F) and, for a calendar, (B,), and what is known ahead, (B,K,A), if anything is -> (B,K,O)."""
        whole = z_BSF[:, z_BSF.shape[1] % self.segment :]
        embedded = self.embed(whole.reshape(z_BSF.shape[0], -1, self.width))
        query_BMH = self.position_MH.expand(z_BSF.shape[0], -1, -1)
        if self.calendar is not None:
            assert step_B is not None
            before, after = -whole.shape[1] // self.segment, self.position_MH.shape[0]
            first = torch.arange(before, after, device=step_B.device) * self.segment + 1
            waves = self.calendar(step_B.unsqueeze(1) + first)
            embedded = embedded + self.past(waves[:, :-after])
            query_BMH = query_BMH + self.coming(waves[:, -after:])
        if ahead_BKA is not None:
            query_BMH = query_BMH + self.ahead(self._in_segments(ahead_BKA))
        _, (h_LBH, c_LBH) = self.core(torch.relu(embedded))
        query = query_BMH.reshape(-1, 1, query_BMH.shape[2])
        out, _ = self.core(query, (self._per_segment(h_LBH), self._per_segment(c_LBH)))
        rows: Tensor = self.head(self.dropout(self.select(out)))
        return rows.view(z_BSF.shape[0], -1, self.targets)[:, : self.horizon]

    def _in_segments(self, ahead_BKA: Tensor) -> Tensor:
        missing = -self.horizon % self.segment
        whole = torch.cat([ahead_BKA, ahead_BKA[:, -1:].expand(-1, missing, -1)], dim=1)
        return whole.reshape(whole.shape[0], -1, self.segment * whole.shape[2])

    def _per_segment(self, state_LBH: Tensor) -> Tensor:
        layers, _, hidden = state_LBH.shape
        count = self.position_MH.shape[0]
        return state_LBH.unsqueeze(2).expand(-1, -1, count, -1).reshape(layers, -1, hidden)


class NaiveNetwork(nn.Module):
    """The location is the forecast: the last value, the mean, or each value of a season before."""

    def __init__(self, targets: int, horizon: int) -> None:
        super().__init__()
        self.targets, self.horizon = targets, horizon

    def forward(self, z_BSF: Tensor, step_B: Tensor | None, ahead_BKA: Tensor | None) -> Tensor:
        """(B,S,F) -> (B,K,O), zeros."""
        return z_BSF.new_zeros(z_BSF.shape[0], self.horizon, self.targets)


class LinearNetwork(nn.Module):
    """The same linear forecast for every target, each from its own past (NLinear: Zeng et al. 2022, arXiv:2205.13504).

    `model.training.ridge` finds its weights; until then it forecasts the location.
    """

    columns: Tensor

    def __init__(self, columns: list[int], steps: int, horizon: int) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.weight = nn.Parameter(torch.zeros(steps, horizon))

    def forward(self, z_BSF: Tensor, step_B: Tensor | None, ahead_BKA: Tensor | None) -> Tensor:
        """(B,S,F) -> (B,K,O)."""
        z_BOS = z_BSF.index_select(2, self.columns).transpose(1, 2)
        return torch.matmul(z_BOS, self.weight).transpose(1, 2)


class SeasonalSkip(nn.Module):
    """A linear forecast beside the network: each step from the same places in the seasons before, weighed alike.

    SparseTSF's idea (Lin et al. 2024, arXiv:2405.00946), without its convolution. It begins as the seasons' mean.
    """

    def __init__(self, steps: int, horizon: int, lag: int) -> None:
        super().__init__()
        self.lag, self.horizon, self.seasons = lag, horizon, steps // lag
        self.weight = nn.Parameter(torch.full((-(-horizon // lag), self.seasons), 1 / self.seasons))

    def forward(self, z_BSO: Tensor) -> Tensor:
        """(B,S,O) -> (B,K,O)."""
        batch, _, targets = z_BSO.shape
        seasons = z_BSO[:, -self.seasons * self.lag :].reshape(batch, self.seasons, self.lag * targets)
        return torch.matmul(self.weight, seasons).view(batch, -1, targets)[:, : self.horizon]


LSTM: TypeAlias = StepNetwork | SegmentNetwork
Network: TypeAlias = LSTM | LinearNetwork | NaiveNetwork


class Member(nn.Module):
    """Normalisation, a network, and back: x (B,S,F) float32 in raw units -> forecast (B,K,O) in raw units.

    It looks back the window's last `look` steps. With a skip the network begins at zero, and learns what is left.
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

    If `non_negative`, what is below zero is zero. `known` is where the features lie that are known ahead.
    """

    weights: Tensor

    def __init__(
        self,
        members: Sequence[Member],
        weights: Sequence[float],
        non_negative: bool = False,
        known: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.non_negative, self.known, self.horizon = non_negative, list(known), members[0].normalisation.horizon
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, x: Tensor, step: Tensor | None = None, future: Tensor | None = None) -> Tensor:
        """(B,S,F), if they take it (B,) and (B,K,C) -> (B,K,O), raw units."""
        forecasts = [member(x, step, future) for member in self.members]
        made = forecasts[0] if len(forecasts) == 1 else (torch.stack(forecasts, dim=-1) * self.weights).sum(dim=-1)
        return torch.relu(made) if self.non_negative else made

    def outputs(self, batch: Batch, state: State | None) -> tuple[Tensor, State | None]:
        """The forecasts (B,K,O); no state goes from window to window."""
        return self(batch.x, batch.step, batch.future), state


def default_segment(steps: int, horizon: int) -> int:
    """The longest segment that divides the horizon, up to 48 steps, and leaves the LSTM at least four to read."""
    longest = min(MAX_SEGMENT, max(1, steps // MIN_SEGMENTS))
    return max(length for length in range(1, longest + 1) if horizon % length == 0)


def build(card: Card, pooled: Pooled | None = None) -> ForecastNetwork:
    """The network that a card describes, with fresh weights.

    `pooled` is left out where weights are loaded, which hold it. Raises ConfigError naming the setting that is wrong.
    """
    members = [member(card, each, pooled) for each in card.networks]
    return ForecastNetwork(members, [1 / len(members)] * len(members), card.output.non_negative, card.known_columns)


def member(card: Card, settings: Mapping[str, Setting], pooled: Pooled | None = None) -> Member:
    """One network of a card, with fresh weights.

    `settings` are arch and location, for location `season` lag, and look, the steps it looks back, if that is not the
    whole window; for an LSTM hidden, layers, dropout, and skip, the season of a linear forecast beside it, if there is
    one; for arch `segment` segment, and calendar, the cycles it knows, with commas, if there are any. Raises
    ConfigError naming the setting that is wrong.
    """
    arch, inputs, horizon = str(settings["arch"]), card.input, card.output.horizon
    if arch not in ARCHITECTURES:
        raise TrainingConfigError(f"arch: {arch!r} is none of {ARCHITECTURES}")
    location = str(settings["location"])
    look, lag = int(settings.get("look", inputs.seq_len)), int(settings.get("lag", 0)) if location == "season" else 0
    if not 2 <= look <= inputs.seq_len:
        raise TrainingConfigError(f"look: {look} is not in a window of {inputs.seq_len} steps")
    if not 0 <= lag < look - 1 or (location == "season" and not lag):
        raise TrainingConfigError(f"lag: {lag} leaves nothing of {look} steps, or is no season")
    if "observed" in inputs.inputs:
        raise TrainingConfigError(f"inputs: {inputs.inputs}, these networks take x, step for a calendar, and future")
    if location not in LOCATIONS:
        raise TrainingConfigError(f"location: {location!r} is none of {LOCATIONS}")
    steps = look - lag
    network = _network(card, settings, steps)
    pooled = pooled or Pooled.unknown(len(inputs.features))
    season = int(settings.get("skip", 0))
    if not 0 <= season <= steps:
        raise TrainingConfigError(f"skip: {season} is no season of {steps} steps")
    skip = SeasonalSkip(steps, horizon, season) if season else None
    ahead = FutureCovariates(card.known_columns, pooled) if inputs.known and isinstance(network, LSTM) else None
    return Member(Normalisation(location, pooled.floor, horizon, lag), network, card.target_columns, skip, look, ahead)


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
        raise TrainingConfigError(f"segment: {segment} is not in {steps} steps")
    cycles = str(settings["calendar"]).split(",") if "calendar" in settings else []
    if cycles and "step" not in card.input.inputs:
        raise TrainingConfigError("calendar: it needs the input step")
    calendar = Calendar(card.input.freq, cycles) if cycles else None
    return SegmentNetwork(*shape, hidden, layers, dropout, segment, calendar, ahead)
