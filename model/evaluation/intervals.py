"""Split-conformal intervals: as wide as the errors of a part of the data that the model was not trained on; in numpy.

N windows   K horizon steps   O targets
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from model.evaluation.splits import run_starts
from model.residuals import LEVELS, Residuals, bounded_scale, rounded, window_scale
from model.windows import Rows, WindowData

Reals = npt.NDArray[np.float64]
SHORT = 8
"""A window of fewer steps has no scale of its own."""


def window_scales(data: WindowData, ends: Rows, columns: Sequence[int]) -> Reals:
    """The scale (N,O) of the unbroken steps up to each of these rows, `seq_len` at most; nan where they are few."""
    steps = np.minimum(ends - run_starts(data, ends) + 1, data.seq_len)
    scales = np.full((len(ends), len(columns)), np.nan)
    for length in np.unique(steps[steps >= min(SHORT, data.seq_len)]).tolist():
        of = np.flatnonzero(steps == length)
        rows = ends[of, None] + np.arange(1 - length, 1)
        for place, column in enumerate(columns):
            scales[of, place] = window_scale(data.values[rows, column])
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
        typical = np.array([np.median(each[each > 0]) if (each > 0).any() else 1.0 for each in scales.T])
        scaled = errors / bounded_scale(scales, typical)[:, None]
        return cls(np.sort(scaled.transpose(1, 2, 0)), typical)

    def residuals(self, steps: Sequence[int], targets: Sequence[str]) -> Residuals | None:
        """What a card keeps of it, at some steps of the horizon; None if at one of them nothing was observed."""
        errors = self.errors[np.array(steps) - 1]
        count = np.isfinite(errors).sum(axis=-1)
        if not count.all():
            return None
        ranks = [_rank(level, count) for level in LEVELS]
        values = [np.take_along_axis(errors, rank[..., None] - 1, -1)[..., 0] for rank in ranks]
        quantiles = np.stack(values, axis=-1)
        return Residuals(
            levels=LEVELS,
            steps=tuple(steps),
            quantiles={name: tuple(map(rounded, quantiles[:, place])) for place, name in enumerate(targets)},
            typical=dict(zip(targets, rounded(self.typical.tolist()), strict=True)),
        )


def _rank(level: float, count: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of so many errors, from 1, is on the safe side of a level: the conformal quantile, or the outermost."""
    rank = np.ceil((count + 1) * level) if level > 0.5 else np.floor((count + 1) * level)
    return np.asarray(np.clip(rank, 1, count).astype(np.int64))
