"""Runs of one value."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from model.online.anomalies.columns import Number
from model.online.anomalies.distances import Inputs
from model.online.anomalies.places import Places
from model.online.tracks import Ints

STUCK_STEPS, SURE = 8, 16.0
"""A value is stuck from so many steps, if by chance that is as rare as exp(-SURE)."""
TIMES = 3
"""A run is long at so many times the longest before."""
OTHERS = 100
"""Steps outside of a run from which it is known how often values repeat."""

Bools = npt.NDArray[np.bool_]
_Count = TypeVar("_Count", int, Ints)


class Runs:
    """The runs of one value that the steps (N,) of a batch are in."""

    def __init__(self, places: Places, numbers: Ints, inputs: Inputs) -> None:
        """numbers: (R,Number), from before."""
        self._places, self._times = places, (inputs.ts, numbers[:, Number.RUN_TS].copy())
        run, longest, repeats = (numbers[:, each] for each in (Number.RUN, Number.LONGEST_RUN, Number.REPEATS))
        same = inputs.value[places.steps] == inputs.last
        same[: places.tracks] &= run > 0
        self._any = bool(same.any())
        if self._any:
            self.run = places.running(same, run - 1) + 1
            """How long it has been so far."""
            ended = np.where(same, 1, np.concatenate((run, self.run))[places.before])
            self.longest = places.largest(np.maximum(ended, 1), longest)
            """The longest of its track that had ended."""
            self.repeats = places.counted(same, repeats)
            """How many of the track's values were equal to the one before."""
        else:
            self.run = np.ones(len(same), np.int64)
            self.longest = np.maximum(np.maximum(longest, run), 1)[places.track]
            self.repeats = repeats[places.track]

    def since(self, step: Ints | int, track: Ints | int) -> Ints:
        """When the runs of some steps, of these tracks, began."""
        return self._places.since(self.run[step], step, track, self._times) if self._any else self._times[0][step]

    def stuck(self, values: Ints) -> Bools | bool:
        """(N,) whether a value is stuck. values: how many the track has had."""
        if not self._any:
            return False
        long: Bools = (self.run >= STUCK_STEPS) & (self.run > TIMES * self.longest)
        return is_stuck(self.run, self.longest, values, self.repeats) if long.any() else False


def is_stuck(run: _Count, longest: _Count, values: _Count, repeats: _Count) -> Any:
    """Whether a run of one value is longer by far than the track's others, and than chance would have it.

    With a share q of repeats outside the run, n steps are equal by chance with q**n <= exp(-2 n (1-q) / (1+q)).
    """
    others, repeated = values - run, repeats - run + 1
    chance = 2.0 * run * (others - repeated + 1) > SURE * (others + repeated + 3)
    return (run >= STUCK_STEPS) & (run > TIMES * longest) & (others >= OTHERS) & chance
