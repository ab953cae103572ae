"""Networks of normalised windows (B,S,F) -> (B,K,O), and their layers.

`lstm` reads a window step by step. `segment` reads it in non-overlapping segments and decodes all segments of the
horizon at once from the same state: SegRNN's idea (Lin et al. 2023, arXiv:2308.11200), with an LSTM cell. `linear` and
`naive` are their baselines: one weight from each step of a window to each of the horizon, or none.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from model.networks.protocol import Core, Head, Select
from model.seasons import calendar_cycles, step_length
from tidecast.errors import TrainingConfigError

HARMONICS = 3
"""Fourier terms per calendar cycle."""


class Dropout(nn.Module):
    """nn.Dropout with its own random generator, as networks trained in parallel would race for the global one."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.kept = 1 - share
        self._seed = int(torch.randint(2**62, ()))
        self._numbers: torch.Generator | None = None

    def forward(self, rows: Tensor) -> Tensor:
        """Any shape; the output has the same."""
        if not self.training or self.kept == 1:
            return rows
        if self._numbers is None:
            self._numbers = torch.Generator(rows.device).manual_seed(self._seed)
        return rows * torch.empty_like(rows).bernoulli_(self.kept, generator=self._numbers) / self.kept


class Calendar(nn.Module):
    """Calendar features: Fourier terms of the time of day, week and year, from the grid index of steps.

    `cycles` are some of `calendar_cycles(freq)`. Raises ConfigError for any other.
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
    """An LSTM over the steps; a linear head forecasts the whole horizon from its last state and future covariates."""

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
        """(B,S,F), and (B,K,A) future covariates if there are any -> (B,K,O)."""
        _, (h_LBH, _) = self.core(z_BSF)  # in a file that is a tenth faster than the last of all outputs
        state_BH = self.dropout(self.select(h_LBH[-1:].transpose(0, 1)))
        known = state_BH if ahead_BKA is None else torch.cat([state_BH, ahead_BKA.flatten(1)], dim=1)
        rows: Tensor = self.head(known)
        return rows.view(-1, self.horizon, self.targets)


class SegmentNetwork(nn.Module):
    """An LSTM encodes segments; from its state one step decodes each segment of the horizon, by position embedding.

    Steps before a window's first whole segment are ignored, decoded steps beyond the horizon are cut off. A calendar
    adds the calendar features of each segment's first step to encoder and decoder inputs; future covariates, A per
    step, are added to the decoder's.
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
        """(B,S,F), (B,) for a calendar, and (B,K,A) future covariates if there are any -> (B,K,O)."""
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
    """Forecasts the location: the last value, the mean, or the value one season earlier."""

    def __init__(self, targets: int, horizon: int) -> None:
        super().__init__()
        self.targets, self.horizon = targets, horizon

    def forward(self, z_BSF: Tensor, step_B: Tensor | None, ahead_BKA: Tensor | None) -> Tensor:
        """(B,S,F) -> (B,K,O), zeros."""
        return z_BSF.new_zeros(z_BSF.shape[0], self.horizon, self.targets)


class LinearNetwork(nn.Module):
    """The same linear forecast for every target, each from its own past (NLinear: Zeng et al. 2022, arXiv:2205.13504).

    `model.training.ridge` fits its weights; initially it forecasts the location.
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
    """A linear skip connection: each step from the same phase of earlier seasons, with weights shared by all phases.

    As in SparseTSF (Lin et al. 2024, arXiv:2405.00946), without its convolution. Initialised to the seasonal mean.
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
