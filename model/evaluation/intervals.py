"""Split-conformal intervals: as wide as the errors on a part of the data that nothing was trained on; in numpy.

C series   N windows   K horizon steps   O targets   L levels
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from model.card import Card
from model.evaluation.baselines import seasonal_naive
from model.evaluation.metrics import covered, crps, winkler
from model.evaluation.splits import FAR, run_starts
from model.levels import Levels
from model.residuals import LEVELS, Residuals, bounded_scale, rounded, window_scale
from model.spikes import winsorised
from model.windows import Flags, Floats, Rows, WindowData

Reals = npt.NDArray[np.float64]
SHORT = 8
"""A window of fewer steps has no scale of its own."""
EXACT = 1e-9
"""More than rounding adds to a count times a level: .9 of 10 is 9, not a little more."""
SHOWN = (80, 90)
"""The levels, in percent, that are shown if no others are asked for."""
DECILES = tuple(tenth / 10 for tenth in range(1, 10))


def window_scales(data: WindowData, ends: Rows, card: Card, most: Rows | None = None) -> Reals:
    """The scale (N,O) of the unbroken steps up to each of these rows, `most` (N,) or `seq_len` of them; nan where few.

    A window's spikes are winsorised, as they are for the forecast.
    """
    columns, spans = card.target_columns, np.broadcast_to(Levels.of(card).spans, len(card.input.features))
    steps = np.minimum(ends - run_starts(data, ends) + 1, data.seq_len if most is None else most)
    scales = np.full((len(ends), len(columns)), np.nan)
    for length in np.unique(steps[steps >= min(SHORT, data.seq_len)]).tolist():
        of = np.flatnonzero(steps == length)
        rows = ends[of, None] + np.arange(1 - length, 1)
        windows = winsorised(data.values[rows][..., columns], spans[columns])
        scales[of] = np.stack([window_scale(windows[..., place]) for place in range(len(columns))], axis=1)
    return scales


@dataclass(frozen=True, slots=True)
class Calibration:
    """The scaled errors of one forecaster, of all series together, by step and target."""

    errors: Reals
    """(K,O,N) actual - forecast, in units of the window's scale; ascending, with nan last where not observed."""
    typical: Reals
    """(O,): the median scale of a window, raw units."""

    @classmethod
    def of(cls, errors: Reals, scales: Reals) -> Self:
        """From errors (N,K,O), nan where there is no actual value, and the scales (N,O) of the windows."""
        usable = [each[(each > 0) & np.isfinite(each)] for each in scales.T]
        typical = np.array([np.median(each) if len(each) else 1.0 for each in usable])
        scaled = errors / bounded_scale(scales, typical)[:, None]
        return cls(np.sort(np.where(np.isfinite(scaled), scaled, np.nan).transpose(1, 2, 0)), typical)

    def residuals(self, steps: Sequence[int], targets: Sequence[str]) -> Residuals | None:
        """What a card keeps of it, at some steps of the horizon; None if at one of them nothing was observed."""
        errors = self.errors[np.array(steps) - 1]
        count = np.isfinite(errors).sum(axis=-1)
        if not count.all():
            return None
        ranks = [_rank(level, count) if level > 0.5 else count + 1 - _rank(1 - level, count) for level in LEVELS]
        quantiles = np.stack([_at(errors, np.clip(rank, 1, count)) for rank in ranks], axis=-1)
        return Residuals(
            levels=LEVELS,
            steps=tuple(steps),
            quantiles={name: tuple(map(rounded, quantiles[:, place])) for place, name in enumerate(targets)},
            typical=dict(zip(targets, rounded(self.typical.tolist()), strict=True)),
        )

    def bounds(self, forecast: Floats, scales: Reals, coverage: float, clipped: Sequence[bool]) -> tuple[Reals, Reals]:
        """The lower and upper bounds of forecasts (N,K,O) from windows of these scales (N,O).

        As far from the forecast as the ceil((n + 1) coverage)-th of n absolute errors, at the same step; nan where n is
        too small for it. Of the targets that are `clipped` (O,) no bound lies below zero.
        """
        sizes = np.sort(np.abs(self.errors))
        count = np.isfinite(sizes).sum(axis=-1)
        rank = _rank(coverage, count)
        farthest = np.where(rank <= count, _at(sizes, np.clip(rank, 1, sizes.shape[-1])), np.nan)
        width = bounded_scale(scales, self.typical)[:, None] * farthest
        least = np.where(clipped, 0.0, -np.inf)
        return np.maximum(forecast - width, least), np.maximum(forecast + width, least)


def naive_calibration(
    data: WindowData, ends: Rows, card: Card, lag: int, most: Rows | None = None, before: int = FAR
) -> Calibration:
    """Of the seasonal naive forecast, in place of a card's model, from these rows, as far as actual values follow.

    If given, it goes by `most` (N,) steps at most; actual values lie `before` a time, epoch milliseconds.
    """
    horizon, columns = card.output.horizon, card.target_columns
    rows = ends[:, None] + np.arange(1, horizon + 1)
    follows = rows < len(data.ts)
    rows = np.where(follows, rows, ends[:, None])
    follows &= (data.run[rows] == data.run[ends][:, None]) & (data.ts[rows] < before)
    values, first = data.values[:, columns], run_starts(data, ends)
    first = first if most is None else np.maximum(first, ends + 1 - most)
    errors = values[rows] - seasonal_naive(values, ends, first, horizon, lag)
    errors[~(follows[..., None] & data.observed[rows][..., columns])] = np.nan
    return Calibration.of(errors, window_scales(data, ends, card, most))


class IntervalScores:
    """How good the intervals of one forecaster are; every observed target has equal weight.

    Widths and scores are in z-scores, of the series' standard deviations (C,O).
    """

    def __init__(self, calibration: Calibration, card: Card, deviation: Reals) -> None:
        self._calibration, self._card, self._deviation = calibration, card, deviation
        self._sums = {name: np.zeros((len(SHOWN), card.output.horizon)) for name in ("coverage", "width", "winkler")}
        self._counts = np.zeros((len(SHOWN), card.output.horizon))
        self._crps = self._scored = 0.0
        self.missing = 0
        """How many intervals there were not, for too few errors to calibrate on."""

    def add(self, data: WindowData, ends: Rows, forecast: Floats, actual: Floats, observed: Flags) -> None:
        """Add N windows: forecasts, actual values and which of them were observed, (N,K,O) each."""
        scales, clipped = window_scales(data, ends, self._card), self._card.output.clipped
        unit = self._deviation[data.series[ends]][:, None]
        for place, level in enumerate(SHOWN):
            lower, upper = self._calibration.bounds(forecast, scales, level / 100, clipped)
            scored = observed & np.isfinite(lower)
            self.missing += int((observed & ~scored).sum())
            score = winkler(lower, upper, actual, level / 100) / unit
            found = {"coverage": covered(lower, upper, actual), "width": (upper - lower) / unit, "winkler": score}
            for name, each in found.items():
                self._sums[name][place] += np.where(scored, each, 0.0).sum(axis=(0, 2))
            self._counts[place] += scored.sum(axis=(0, 2))
        error = crps(self._deciles(forecast, scales, clipped), DECILES, actual) / unit
        scored = observed & np.isfinite(error)
        self._crps += error[scored].sum()
        self._scored += scored.sum()

    def _deciles(self, forecast: Floats, scales: Reals, clipped: Sequence[bool]) -> Reals:
        """The nine deciles of what is forecast (N,K,O,9): the bounds of the intervals of 20 to 80 %."""
        pairs = [self._calibration.bounds(forecast, scales, coverage, clipped) for coverage in (0.8, 0.6, 0.4, 0.2)]
        lower, upper = ([pair[side] for pair in pairs] for side in (0, 1))
        return np.stack([*lower, forecast, *reversed(upper)], axis=-1)

    def overall(self) -> dict[str, dict[str, float]]:
        """By level: the share covered, mean width and Winkler score; nan where there is no interval."""
        return {str(level): self._means((place, slice(None))) for place, level in enumerate(SHOWN)}

    def by_step(self) -> dict[str, list[float]]:
        """By level: the share covered at each of the K steps ahead."""
        steps = range(self._counts.shape[1])
        return {str(level): [self._means((place, k))["coverage"] for k in steps] for place, level in enumerate(SHOWN)}

    @property
    def crps(self) -> float:
        """The continuous ranked probability score, from nine deciles; nan if there are none."""
        return float(self._crps / self._scored) if self._scored else float("nan")

    def _means(self, part: tuple[int, int | slice]) -> dict[str, float]:
        count = float(self._counts[part].sum())
        return {name: float(sums[part].sum()) / count if count else float("nan") for name, sums in self._sums.items()}


def _rank(coverage: float, count: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of so many errors, from 1 as the smallest, is the conformal quantile; beyond them all if they are few."""
    return np.asarray(np.ceil((count + 1) * coverage - EXACT).astype(np.int64))


def _at(ordered: Reals, rank: npt.NDArray[np.int64]) -> Reals:
    """The values (...,) of these ranks, from 1, in (...,N)."""
    return np.take_along_axis(ordered, rank[..., None] - 1, -1)[..., 0]
