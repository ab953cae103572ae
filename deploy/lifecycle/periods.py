"""What a retraining learns from, and what it keeps for judging: all of it newer than what any model was trained on."""

from dataclasses import dataclass

import numpy as np

from model.evaluation.promotion import required_steps
from model.evaluation.splits import Cuts, last_share, step_numbers
from pipeline.windows.sliding import SlidingWindows
from tidecast.times import format_time

MAX_COMPARISON = 3
"""The longest test part of a comparison, in multiples of the least that a decision needs."""


@dataclass(frozen=True, slots=True)
class Periods:
    """A history in two: what the challenger learns from, and the test part at its end."""

    cuts: Cuts
    new: int
    """Steps to learn from that are newer than the champion's training data."""
    learned: dict[str, object]
    """Events, series and span of time of the first part."""
    judged: dict[str, object]
    """And of the second."""

    def in_words(self, champion: str) -> str:
        """As a line."""
        learned, judged = self.learned, self.judged
        return (
            f"learns from {learned['events']:,} events of {learned['series']:,} series, {learned['from']} to "
            f"{learned['to']} UTC, {self.new:,} steps of them newer than the training data of {champion}; "
            f"keeps for judging {judged['events']:,} events of {judged['series']:,} series, {judged['from']} to "
            f"{judged['to']} UTC"
        )


def unseen_steps(data: SlidingWindows, seen: int) -> int:
    """How many steps are later than the last one seen, epoch milliseconds."""
    return len(np.unique(step_numbers(data, np.flatnonzero(data.ts > seen))))


def needed_steps(horizon: int) -> int:
    """How many unseen steps a retraining takes: some to learn from, and those that a decision takes."""
    return horizon + required_steps(horizon)


def divide(data: SlidingWindows, seen: int, horizon: int, validation: float) -> Periods | None:
    """The test part is the later half of the unseen steps, or what a decision needs; None if there are too few.

    The other half is for learning: a challenger that learned nothing new would be the champion again.
    """
    rows = np.flatnonzero(data.ts > seen)
    numbers = step_numbers(data, rows)
    unseen = np.unique(numbers)
    if len(unseen) < needed_steps(horizon):
        return None
    least = required_steps(horizon)
    steps = min(MAX_COMPARISON * least, max(least, len(unseen) // 2))
    cuts = last_share(data, validation, horizon, int(data.ts[rows[numbers >= unseen[-steps]]].min()))
    return Periods(cuts, len(unseen) - steps, _facts(data, data.ts < cuts.test), _facts(data, data.ts >= cuts.test))


def _facts(data: SlidingWindows, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> dict[str, object]:
    known = rows & data.observed.any(axis=1)
    first, last = (format_time(int(ts)) for ts in (data.ts[rows].min(), data.ts[rows].max()))
    return {"events": int(known.sum()), "series": len(np.unique(data.series[known])), "from": first, "to": last}
