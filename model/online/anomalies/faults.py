"""Steps at which something may have gone wrong in the data, among those of many tracks."""

import numpy as np
import numpy.typing as npt

from model.online.anomalies.cases import SMALL, SUSTAINED, Track
from model.online.anomalies.columns import DISTURBED, Distance, Number
from model.online.anomalies.distances import Floats
from model.online.anomalies.findings import Finding
from model.online.anomalies.follow import JUMP, Follower, Steps
from model.online.tracks import Ints

Bools = npt.NDArray[np.bool_]

ENOUGH, DAYS = 100, 7
"""Steps before a track's first finding, and days: steps with a forecast for what is found of errors."""
WHILE = 96
"""Steps, or two days if they have more, after which worse errors are a drift."""
SHORTEST = 12
"""Steps of a day from which the value a day before tells whether a value is back."""


class Faults:
    """Looks at all steps at once, and closer at the few where something may be. season: steps of a day."""

    def __init__(self, season: int) -> None:
        self._season = season if season >= SHORTEST else 1
        self._enough = max(ENOUGH, DAYS * self._season)
        self._while = max(WHILE, 2 * season)

    def examine(self, steps: Steps, numbers: Ints, case: Floats) -> list[Finding]:
        """Findings, by step. numbers: (R,Number), case: (R,Case): changed to those after the steps."""
        places, found = steps.places, list[Finding]()
        missing = self._missing(steps, numbers)
        closer = self._closer(steps, numbers[:, Number.STATE])
        closer |= missing > numbers[:, Number.MISSING].take(places.track)
        first: dict[int, int] = {}
        for step in closer.nonzero()[0].tolist():
            first.setdefault(int(places.track[step]), step)
        tracks = {each: Track(numbers[each].tolist(), case[each].tolist(), self._season) for each in first}
        last = places.last
        numbers[:, Number.LONGEST_RUN] = steps.runs.longest[last]
        numbers[:, Number.RUN_TS] = steps.runs.since(last, np.arange(places.tracks))
        steps.worse.store(numbers)
        follower = Follower(steps, closer, missing, self._enough, self._while)
        for number, track in tracks.items():
            found += follower.follow(number, track, first[number])
            begin = Number.LONGEST_RUN if track.is_own else Number.STATE
            numbers[number, begin:], case[number] = track.numbers[begin:], track.case
        return sorted(found, key=lambda each: each.row)

    def _missing(self, steps: Steps, numbers: Ints) -> Ints:
        """(N,) how many steps are missing before a step."""
        before = np.concatenate((numbers[:, Number.STEP], steps.inputs.step))[steps.places.before]
        missing: Ints = (steps.inputs.step - before - 1) * (steps.distances.counts[Number.VALUES] > 1)
        return missing

    def _closer(self, steps: Steps, state: Ints) -> Bools:
        """(N,) the steps to be looked at closely; of a track where something is going on the first."""
        places, (values, errors, _) = steps.places, steps.distances.counts
        novelty = steps.distances.novelty[:, places.steps]
        closer: Bools = novelty[Distance.ERROR] > JUMP
        closer |= novelty[Distance.OFFSET] > SUSTAINED
        closer |= novelty[Distance.SMALL] > SMALL
        closer |= steps.worse.closer(state, self._while)
        closer &= errors > self._enough
        if (stuck := steps.runs.stuck(values)) is not False:
            closer |= stuck & (values > self._enough)
        closer[: places.tracks] |= state & DISTURBED != 0
        return closer
