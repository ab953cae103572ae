"""Runs of one value."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from model.online.anomalies.columns import Number
from model.online.anomalies.places import Places
from model.online.tracks import Ints

STUCK_STEPS, SURE = 8, 16.0
"""A value is stuck from so many steps, if by chance that is as rare as exp(-SURE)."""
TIMES = 3
"""A run is long at so many times the longest before."""
OTHERS = 100
"""Steps outside of a run from which it is known how often values repeat."""

_Count = TypeVar("_Count", int, Ints)


class Runs:
    """The runs of one value that the steps (N,) of a batch are in."""

    def __init__(self, places: Places, numbers: Ints, value: npt.NDArray[np.float64], ts: Ints) -> None:
        """numbers (R,Number) from before; value: (R+N,); ts: (N,)"""
        self._places, self._ts, self._since = places, ts, numbers[:, Number.RUN_TS].copy()
        run, longest, repeats = numbers[:, [Number.RUN, Number.LONGEST_RUN, Number.REPEATS]].T
        same = value[places.steps] == value[places.before]
        same[: places.tracks] &= run > 0
        if same.any():
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
        places = self._places
        begin = places.round[step] - self.run[step] + 1
        place = np.array(places.starts)[np.maximum(begin, 0)] - places.tracks + track
        return np.where(begin < 0, self._since[track], self._ts[place])

    def stuck(self, values: Ints) -> npt.NDArray[np.bool_]:
        """(N,) whether a value is stuck. values: how many the track has had."""
        long: npt.NDArray[np.bool_] = (self.run >= STUCK_STEPS) & (self.run > TIMES * self.longest)
        if long.any():
            long &= is_stuck(self.run, self.longest, values, self.repeats)
        return long


def is_stuck(run: _Count, longest: _Count, values: _Count, repeats: _Count) -> _Count:
    """Whether a run of one value is longer by far than the track's others, and than chance would have it.

    With a share q of repeats outside the run, n steps are equal by chance with q**n <= exp(-2 n (1-q) / (1+q)).
    """
    others, repeated = values - run, repeats - run + 1
    chance = 2.0 * run * (others - repeated + 1) > SURE * (others + repeated + 3)
    return (run >= STUCK_STEPS) & (run > TIMES * longest) & (others >= OTHERS) & chance
