"""The state by which every forecast is graded: what was forecast, scores, intervals and anomalies of all series.

It is in arrays with a row per track (a target of a series). Each series' results depend on its own steps alone, in
their order, and so are the same to the bit whatever is computed together.

O targets   H scored steps
"""

import numpy as np

from model.online.anomalies.anomalies import Anomalies
from model.online.intervals import Intervals
from model.online.memory import Memory
from model.online.scores import INTERVALS, Bucket, Scores
from model.online.steps import scored_steps
from model.online.tracks import Field, Fields, TrackStore
from model.online.values import Tally

BEGUN: Fields = {"begun": Field("|u1")}
"""Whether a track has had margins."""


class Live:
    """The live scores, intervals and anomalies of a model's forecasts."""

    def __init__(
        self,
        horizon: int,
        targets: int,
        season: int,
        coverage: float | None,
        every: int | None,
        *,
        anomalies: bool = True,
        clipped: tuple[bool, ...] = (),
    ) -> None:
        """`coverage` is that of the intervals, `every` a bucket's length in milliseconds; None leaves them out."""
        self.horizon, self.steps = horizon, scored_steps(horizon)
        self.targets, self.coverage = targets, coverage
        self.clipped = np.array(clipped or [False] * targets)
        self.memory = Memory(self.steps)
        self.intervals = None if coverage is None else Intervals(self.steps, coverage, season)
        self.scores = None if every is None else Scores(len(self.steps), every)
        self.anomalies = Anomalies(season) if anomalies else None
        self.sequential: dict[str, Field] = {
            **({**BEGUN, **self.intervals.fields} if self.intervals else {}),
            **(self.anomalies.fields if self.anomalies else {}),
            **(self.scores.fields if self.scores else {}),
        }
        self.tally = Tally()
        self.store = TrackStore({**self.memory.fields, **self.sequential}, targets)

    def forget_intervals(self, row: int) -> None:
        """Leave the intervals that were issued for a series ungraded, as they were for another coverage."""
        rows = slice(row, row + self.targets)
        self.store.array("issued")[rows] = np.nan
        if self.scores is not None:
            self.store.array("sums")[rows, :, INTERVALS:] = 0.0

    def finish(self, row: int) -> Bucket | None:
        """Forget a series: its open bucket, if anything was scored in it, with all that is still to come unscored."""
        rows = np.arange(row, row + self.targets)
        closed = None
        if self.scores is not None and self.store.array("seen")[row]:
            tracks = self.store.gather(rows, self.scores.fields)
            last = int(self.store.array("observed")[row])
            for number, ahead in enumerate(self.steps):
                coming = np.arange(last + 1, last + ahead + 1)
                for target, each in enumerate(rows.tolist()):
                    tracks["unscored"][target, number] += self.memory.holds(self.store, each, number, coming).sum()
            closed = self.scores.close(tracks, rows, slice(0, self.targets))
        self.release(row)
        return closed

    def release(self, row: int) -> None:
        """Free the rows of a series for another one, which begins anew."""
        if self.scores is not None:
            for each in range(row, row + self.targets):
                self.scores.parked.pop(each, None)
        self.store.release(row)
