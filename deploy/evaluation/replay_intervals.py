"""The intervals that a service would have given over a past, step by step, and how they fitted.

N origins   O targets   K horizon steps   H scored steps
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.grading.batch import first_margins
from model.card import Card
from model.evaluation.baselines import seasonal_naive
from model.evaluation.splits import run_starts
from model.online.batch import grade
from model.online.live import Live
from model.online.scores import SUMS
from model.online.values import Observed
from model.windows import Floats, Rows
from pipeline.windows.sliding import SlidingWindows

INTERVAL_SCORES = {"coverage": ".1%", "width": ".4g", "winkler": ".4g"}
"""Columns of the table, and their formats."""
INTERVALS_IN_WORDS = (
    "coverage: the share of values inside their intervals, at scored steps; width, winkler: in the series' units, and "
    "winkler, the width and a penalty for each value outside, is lower for a better interval"
)
WHOLE = 1 << 62
"""A bucket that holds all of time, in milliseconds."""


class ReplayIntervals:
    """The online intervals of one model's forecasts, series after series."""

    def __init__(self, data: SlidingWindows, card: Card, coverage: float) -> None:
        targets, clipped = len(card.output.targets), card.output.clipped
        self._data, self._card = data, card
        self._live = Live(
            card.output.horizon, targets, card.input.scoring_lag, coverage, WHOLE, anomalies=False, clipped=clipped
        )
        self._rows = np.array([self._live.store.allocate() for _ in data.names])

    def add(self, ends: Rows, forecasts: Floats) -> None:
        """Add forecasts (N,K,O) from these rows (N,) of the history, in order."""
        data, live, columns = self._data, self._live, self._card.target_columns
        steps = np.array(live.steps)
        naive = seasonal_naive(
            data.values[:, columns], ends, run_starts(data, ends), steps, self._card.input.scoring_lag
        )
        observed = Observed(
            row=self._rows[data.series[ends]],
            step=data.step[ends],
            ts=data.ts[ends],
            value=data.values[ends][:, columns],
            forecast=_tracks(forecasts[:, steps - 1]),
            naive=_tracks(naive),
            by=np.ones(len(ends), np.uint32),
        )
        full = np.full(len(ends), data.seq_len)
        grade(live, observed, lambda places: first_margins(self._card, live, data.x(ends[places]), full[places]))

    def scores(self) -> dict[str, Any]:
        """Coverage, mean width and Winkler score in raw units, overall and by scored step."""
        closed = [bucket for row in self._rows.tolist() if (bucket := self._live.finish(row))]
        sums = np.sum([part.sums for bucket in closed for part in bucket.parts], axis=0)
        if not np.ndim(sums):
            return {}
        overall = _means(sums.sum(axis=0))
        by_step = [_means(step) for step in sums]
        steps = {name: [each[name] for each in by_step] for name in INTERVAL_SCORES}
        return {**overall, "intervals_by_step": {"steps": list(self._live.steps), **steps}}


def _means(sums: npt.NDArray[np.float64]) -> dict[str, float]:
    """From the sums (M,) of intervals that were graded."""
    of = dict(zip(SUMS, sums.tolist(), strict=True))
    count = of["intervals"] or np.nan
    return {"coverage": of["inside"] / count, "width": of["width"] / count, "winkler": of["winkler"] / count}


def _tracks(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """(N,H,O) as (N,O,H)."""
    return np.ascontiguousarray(values.transpose(0, 2, 1), np.float64)
