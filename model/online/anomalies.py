"""How unusual each new actual is for its series, and what in the data went wrong.

Two questions on the same state. The score (0 as expected, 1 at the bound) compares each actual's distances from what
was expected with the largest such distances that the series has had. A finding (faults.py) needs more: a distance far
above these, and what the following steps say of it.

R tracks   M means   S distances, with three records each: the largest so far
"""

import numpy as np
import numpy.typing as npt

from model.online.anomaly_state import DISTURBED, FIELDS, Case, Clock, Count, Distance, Mean
from model.online.faults import Faults
from model.online.findings import Finding
from model.online.tracks import Ints, Tracks

Floats = npt.NDArray[np.float64]
Margins = npt.NDArray[np.float32] | Floats

LARGEST = 1e30
"""Values are taken as at most so large here: whatever is computed of them is finite."""
SMALLEST = 1e-36
"""Distances below are none."""
FORGET = 1 - 1e-5
"""Records fade by this at each step."""
GROWTH = 3.0
"""A distance counts as at most so many times the lowest record."""
MOST, MOST_NOVEL = 100.0, 1e6
"""The largest score, and multiple of a record."""
FIRST = 50
"""Steps before the first score above 0."""
TINY = 1e4
"""A value counts as at most so many times smaller than usual."""
BOUND = np.array([1.02, 1.02, 1.25, 1.25, 1.25, np.inf])
"""How many times its lowest record a distance is at a score of 1."""
CLIP = 8.0
"""A size counts as at most so many times its mean."""
OF = [Count.VALUES] * 4 + [Count.NAIVES] + [Count.VALUES] * 3 + [Count.NAIVES] + [Count.ERRORS] * 2
"""The count of what each mean is of."""
COUNTED = [Mean.LEVEL, Mean.ERROR, Mean.NAIVE]
"""Means that VALUES, ERRORS and NAIVES count for."""


class Anomalies:
    """Scores and findings of many tracks.

    season: the steps of a day, 1 if steps are no parts of one
    """

    fields = FIELDS

    def __init__(self, season: int = 1) -> None:
        self._faults = Faults(season)
        self._hold = 24 + season // 3
        rates = np.empty(Mean.ALL)
        rates[Mean.LEVEL] = 2 / (max(8, season // 2) + 1)
        rates[[Mean.SHORT, Mean.OFFSET]] = 2 / (5 + 1)
        rates[Mean.LONG] = 0.0005
        rates[Mean.DAYS] = max(1 / (3 * season), 0.0003) if season > 1 else 0.002
        rates[Mean.SMALL] = 0.5
        rates[[Mean.SIZE, Mean.MOVE]] = 0.01
        rates[[Mean.ERROR, Mean.NAIVE]] = 1 / max(64, season)
        rates[Mean.USUAL] = 0.0005
        self._rates = rates

    def update(
        self, tracks: Tracks, value: Floats, error: Floats, naive: Floats, margins: Margins, step: Ints, ts: Ints
    ) -> tuple[Floats, list[Finding]]:
        """The score (R,) of each track's next actual, and what was found, ended or begun.

        value: (R,) finite. error, naive: (R,) actual - the forecast, and the seasonal naive's, of one step, NaN where
        there was none. margins: (R,2) below and above that forecast, NaN where there were none. step, ts (ms): (R,)
        """
        value = np.clip(value, -LARGEST, LARGEST)
        self._learn(tracks, value, error, naive)
        novelty = self._novelty(tracks, error, naive, margins)
        score = self._score(tracks["anomaly_counts"], novelty)
        found = self._faults.examine(tracks, value, error, naive, novelty, step, ts)
        tracks["anomaly_case"][:, Case.LAST] = value
        tracks["anomaly_clocks"][:, Clock.STEP] = step
        tracks["anomaly_clocks"][:, Clock.TS] = ts
        return score, found

    def silence(self, tracks: Tracks, step: Ints, ts: Ints) -> list[Finding]:
        """Gaps that begin, of tracks whose last step is far behind these (R,); ts: (R,) stream time in ms."""
        return self._faults.silence(tracks, step, ts)

    def _learn(self, tracks: Tracks, value: Floats, error: Floats, naive: Floats) -> None:
        """Count, and move all means; at first each is the mean of all so far."""
        counts, means = tracks["anomaly_counts"], tracks["anomaly_means"]
        new = np.empty_like(means)
        new[:, : Mean.DAYS + 1] = value[:, None]
        new[:, Mean.SMALL] = new[:, Mean.SIZE] = value
        np.subtract(value, tracks["anomaly_case"][:, Case.LAST], out=new[:, Mean.MOVE])
        new[:, Mean.OFFSET] = new[:, Mean.NAIVE] = naive
        new[:, Mean.ERROR] = new[:, Mean.USUAL] = error
        sizes, limit = new[:, Mean.SMALL :], CLIP * means[:, Mean.SMALL :]
        np.copyto(limit, 4 * LARGEST, where=limit == 0)
        np.abs(sizes, out=sizes)
        there = new <= 4 * LARGEST
        there[:, Mean.MOVE] = counts[:, Count.VALUES] > 0
        np.minimum(sizes, limit, out=sizes)
        counts[:, : Count.NAIVES + 1] += there[:, COUNTED]
        rate = np.maximum(self._rates, 1 / np.maximum(counts[:, OF], 1))
        new -= means
        new *= rate
        np.add(means, new, out=means, where=there)

    def _novelty(self, tracks: Tracks, error: Floats, naive: Floats, margins: Margins) -> Floats:
        """(R,S) distances relative to the lowest record of each, which then learns of them."""
        counts, means, records = tracks["anomaly_counts"], tracks["anomaly_means"], tracks["anomaly_records"]
        far = np.empty((len(means), Distance.ALL))
        np.subtract(means[:, : Mean.SHORT + 1], means[:, Mean.LONG : Mean.DAYS + 1], out=far[:, : Distance.SHORT + 1])
        far[:, Distance.ERROR], far[:, Distance.NAIVE] = error, naive
        far[:, Distance.OFFSET] = means[:, Mean.OFFSET]
        np.divide(means[:, Mean.SIZE], means[:, Mean.SMALL] + 1e-100, out=far[:, Distance.SMALL])
        np.minimum(far[:, Distance.SMALL], TINY, out=far[:, Distance.SMALL])
        np.abs(far, out=far)
        np.copyto(far, 0, where=~(far <= 4 * LARGEST))
        lowest = records[:, 0].astype(np.float64)
        kept = np.minimum(far, np.where(lowest > 0, GROWTH * lowest, 4 * LARGEST))
        kept *= (counts[:, Count.STATE] & DISTURBED == 0)[:, None]
        records *= FORGET
        np.maximum(records[:, :-1], np.minimum(kept[:, None], records[:, 1:]), out=records[:, :-1])
        np.maximum(records[:, -1], kept, out=records[:, -1])
        inside = np.where(error > 0, margins[:, 1], margins[:, 0])
        lowest[:, Distance.ERROR] = np.fmax(lowest[:, Distance.ERROR], inside)
        novelty: Floats = far / np.maximum(lowest, 1e-9 * means[:, Mean.SIZE, None] + SMALLEST)
        np.minimum(novelty, MOST_NOVEL, out=novelty)
        return novelty

    def _score(self, counts: Ints, novelty: Floats) -> Floats:
        """(R,) the largest novelty in bounds, held at 1 for a while after one that was above."""
        score: Floats = (novelty / BOUND).max(1)
        values, said = counts[:, Count.VALUES], counts[:, Count.SAID]
        held = (said > 0) & (values <= said + self._hold)
        score = np.minimum(score, np.where(held, 1.0, MOST))
        score[values <= FIRST] = 0
        np.copyto(said, values, where=score > 1)
        return score
