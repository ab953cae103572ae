"""Steps at which something may have gone wrong in the data, among those of many tracks."""

import numpy as np
import numpy.typing as npt

from model.online.anomaly_state import DISTURBED, Case, Clock, Count, Distance, Mean, State
from model.online.cases import SMALL, SUSTAINED, Event, Track, most_missing
from model.online.findings import Finding
from model.online.tracks import Ints, Tracks

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ENOUGH, DAYS = 100, 7
"""Steps before a track's first finding; and days."""
JUMP, AWAY = 1.2, 0.5
"""A case begins at so many times the records of the forecast's error, if the value is away from the one a season
before, too, by so much of that error; or where cases.py has it."""
STUCK_STEPS, SURE = 8, 16.0
"""A value is stuck from so many steps, if by chance that is as rare as exp(-SURE)."""
TIMES = 3
"""A run is long at so many times the longest before."""
WORSE, NAIVE_WORSE = 2.0, 1.2
"""Drift: errors lately, as a multiple of the usual ones and of the naive ones."""
WHILE = 96
"""Steps, or two days if they have more, after which worse errors are a drift."""
SHORTEST = 12
"""Steps of a day from which the value a day before tells whether a value is back."""


class Faults:
    """Looks at a step of many tracks at once, and closer at the few where something may be. season: steps of a day."""

    def __init__(self, season: int) -> None:
        self.season = season if season >= SHORTEST else 1
        self.enough = max(ENOUGH, DAYS * self.season)
        self._while = max(WHILE, 2 * season)

    def examine(
        self, tracks: Tracks, value: Floats, error: Floats, naive: Floats, novelty: Floats, step: Ints, ts: Ints
    ) -> list[Finding]:
        """Findings of these steps (R,), by row. novelty: (R,S) distances in multiples of their records."""
        counts, clocks = tracks["anomaly_counts"], tracks["anomaly_clocks"]
        enough = counts[:, Count.VALUES] > self.enough
        missing = np.where(counts[:, Count.VALUES] > 1, step - clocks[:, Clock.STEP] - 1, 0)
        self._count_run(tracks, value, ts)
        stuck, worse = self._stuck(counts) & enough, self._worse(counts, tracks["anomaly_means"]) & enough
        jumped = (novelty[:, Distance.ERROR] > JUMP) & (np.abs(naive) > AWAY * np.abs(error))
        jumped |= (novelty[:, Distance.OFFSET] > SUSTAINED) | (novelty[:, Distance.SMALL] > SMALL)
        jumped &= enough
        closer = jumped | stuck | worse | (missing > counts[:, Count.LONGEST_GAP]) | (counts[:, Count.STATE] != 0)
        found: list[Finding] = []
        for row in closer.nonzero()[0].tolist():
            columns = (value, error, naive, novelty, step, ts, missing, jumped, stuck, worse, enough)
            event = Event(*(column[row].tolist() for column in columns))
            found += Track(tracks, row, self.season).examine(event)
        return found

    def silence(self, tracks: Tracks, step: Ints, ts: Ints) -> list[Finding]:
        """Gaps that begin, of tracks whose last step is far behind these (R,); ts: (R,) stream time."""
        counts, clocks = tracks["anomaly_counts"], tracks["anomaly_clocks"]
        longest = counts[:, Count.LONGEST_GAP]
        missing = step - clocks[:, Clock.STEP] - 1
        gap = (missing > most_missing(longest)) & (counts[:, Count.VALUES] > self.enough)
        gap &= counts[:, Count.STATE] & State.GAP == 0
        counts[gap, Count.STATE] |= State.GAP
        columns = ts, clocks[:, Clock.TS], missing.astype(np.float64), longest.astype(np.float64)
        return [
            Finding(row, "gap", "begin", *(column[row].item() for column in columns))
            for row in gap.nonzero()[0].tolist()
        ]

    @staticmethod
    def _count_run(tracks: Tracks, value: Floats, ts: Ints) -> None:
        """Count equal values in a row, and the longest such run, except one that was found stuck."""
        counts, clocks = tracks["anomaly_counts"], tracks["anomaly_clocks"]
        run, longest = counts[:, Count.RUN], counts[:, Count.LONGEST_RUN]
        same = (value == tracks["anomaly_case"][:, Case.LAST]) & (run > 0)
        np.maximum(longest, run, out=longest, where=~same & (counts[:, Count.STATE] & State.STUCK == 0))
        counts[:, Count.RUN] = run * same + 1
        counts[:, Count.REPEATS] += same
        np.copyto(clocks[:, Clock.RUN_TS], ts, where=~same)

    @staticmethod
    def _stuck(counts: Ints) -> Bools:
        """(R,) whether a run of one value is longer by far than the track's others, and than chance would have it.

        With a share q of repeats outside the run, n steps are equal by chance with q**n <= exp(-2 n (1-q) / (1+q)).
        """
        run = counts[:, Count.RUN]
        long: Bools = (run >= STUCK_STEPS) & (run > TIMES * counts[:, Count.LONGEST_RUN])
        if long.any():
            others = counts[:, Count.VALUES] - run
            repeats = counts[:, Count.REPEATS] - run + 1
            long &= (others >= ENOUGH) & (2.0 * run * (others - repeats + 1) > SURE * (others + repeats + 3))
        return long

    def _worse(self, counts: Ints, means: Floats) -> Bools:
        """(R,) whether the forecast's errors have long been worse than usual and than the naive ones."""
        error = means[:, Mean.ERROR]
        worse = (error > WORSE * means[:, Mean.USUAL]) & (error > NAIVE_WORSE * means[:, Mean.NAIVE])
        worse &= counts[:, Count.STATE] & DISTURBED == 0
        counts[:, Count.WORSE] = (counts[:, Count.WORSE] + 1) * worse
        long: Bools = counts[:, Count.WORSE] >= self._while
        return long
