"""How unusual each new actual is for its series, and what in the data went wrong.

Two questions on the same state. The score (0 as expected, 1 at the bound) compares each actual's distances from what
was expected with the largest such distances that the series has had. A finding (faults.py) needs more: a distance far
above these, and what the following steps say of it.

Only what a step needs of the one before is computed round by round, and that for all tracks at once: means and records
(distances.py). All else is computed once for all steps of a batch, but for the few tracks in which something may be.

R tracks   N steps, in rounds
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.online.anomalies.columns import FIELDS, Case, Distance, Mean, Number
from model.online.anomalies.distances import LARGEST, Distances, Floats, Inputs
from model.online.anomalies.drift import Worse
from model.online.anomalies.faults import Faults
from model.online.anomalies.findings import Finding
from model.online.anomalies.follow import Steps
from model.online.anomalies.places import Places
from model.online.anomalies.runs import Runs
from model.online.tracks import Ints, Tracks

MOST = 100.0
"""The largest score."""
FIRST = 50
"""Steps before the first score above 0, and forecasts before the first of their errors."""
BOUND = np.array([[1.02], [1.02], [1.25], [1.25], [1.25]])
"""How many times its lowest record a distance is at a score of 1; smallness has no score."""


class Anomalies:
    """Scores and findings of many tracks.

    season: the steps of a day, 1 if steps are no parts of one
    """

    fields = FIELDS

    def __init__(self, season: int = 1) -> None:
        self._faults = Faults(season)
        self._hold = 24 + season // 3
        rates = np.empty((Mean.ALL, 1))
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
        self,
        tracks: Tracks,
        sizes: Sequence[int],
        value: Floats,
        error: Floats,
        naive: Floats,
        margins: npt.NDArray[np.float32],
        step: Ints,
        ts: Ints,
        by: Ints,
    ) -> tuple[Floats, list[Finding]]:
        """The score (N,) of each actual, and what was found, ended or begun, by step.

        The steps are in rounds, in each of which the first of the tracks have one: `sizes` of them, at first R.
        value: (N,) finite. error, naive: (N,) actual - the forecast, and the seasonal naive's, of one step, NaN where
        there was none. margins: (N,2) below and above that forecast, NaN where there were none. step, ts (ms): (N,).
        by: (N,) the version that the forecast was of, 0 where there was none.
        """
        places, numbers, case = Places(sizes), tracks["anomaly_numbers"], tracks["anomaly_case"]
        value = np.concatenate((case[:, Case.LAST], np.minimum(np.maximum(value, -LARGEST), LARGEST)))
        inside = np.where(error > 0, margins[:, 1], margins[:, 0])
        inputs = Inputs(value, value[places.before], error, naive, inside, step, ts, by)
        distances, runs = Distances(places, tracks, inputs, self._rates), Runs(places, numbers, inputs)
        worse = Worse(places, distances, inputs, numbers)
        found = self._faults.examine(Steps(places, distances, runs, worse, inputs), numbers, case)
        score = self._score(places, distances, numbers[:, Number.SAID])
        distances.store(tracks)
        numbers[:, Number.STEP], numbers[:, Number.RUN] = step[places.last], runs.run[places.last]
        numbers[:, Number.REPEATS] = runs.repeats[places.last]
        case[:, Case.LAST] = value[places.last + places.tracks]
        return score, found

    def _score(self, places: Places, distances: Distances, said: Ints) -> Floats:
        """(N,) the largest novelty in bounds, held at 1 for a while after one that was above."""
        novelty = distances.novelty[: Distance.SMALL, places.steps]
        values, errors, _ = distances.counts
        bounded = novelty / BOUND
        if errors.min() <= FIRST:  # there are never more than values
            bounded[Distance.ERROR :, errors <= FIRST] = bounded[:, values <= FIRST] = 0
        score: Floats = np.maximum.reduce(bounded)
        for step in (score > 1).nonzero()[0].tolist():
            track, number = places.track[step], values[step]
            if said[track] > 0 and number <= said[track] + self._hold:
                score[step] = 1.0
            else:
                said[track], score[step] = number, min(score[step], MOST)
        return score
