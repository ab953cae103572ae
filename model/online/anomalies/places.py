"""Where the steps of a batch lie in its arrays.

R tracks   N steps, in rounds: in each, the first of the tracks have a step

The arrays have R + N columns: the tracks' states before the batch, then the steps, round after round. The number of a
column is its place.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from model.online.tracks import Ints

RANK = 1 << 40
"""More than any count."""


class Places:
    """The places of a batch's steps."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """sizes: how many tracks have a step in each round, R in the first, then never more."""
        self.tracks, count = sizes[0], sum(sizes)
        before = [self.tracks, *sizes[:-1]]
        self.starts = [*accumulate(before)]
        """Each round's first place."""
        self.steps = slice(self.tracks, self.tracks + count)
        place = np.arange(self.tracks, self.tracks + count)
        of_round = np.repeat(np.array([range(1, len(sizes) + 1), self.starts, before]), sizes, axis=1)
        self.turn: Ints = of_round[0]
        """(N,): the number of the round, from 1: how many steps its track has had."""
        self.track: Ints = place - of_round[1]
        """(N,)."""
        self.before: Ints = place - of_round[2]
        """(N,): the place of the same track's step before."""
        self.pairs = [
            (slice(start - size, start - size + now), slice(start, start + now))
            for start, size, now in zip(self.starts, before, sizes, strict=True)
        ]
        """By round, the places before, and of the round."""
        self.last: Ints = np.empty(self.tracks, np.int64)
        """(R,): the number of each track's last step, of N."""
        self.last[self.track] = place - self.tracks

    @cached_property
    def _first(self) -> Ints:
        """(R,): where each track's steps begin, track after track."""
        lengths = self.turn[self.last]
        return np.cumsum(lengths) - lengths

    @cached_property
    def _sorted(self) -> Ints:
        """(N,): where each step is, track after track."""
        return self._first[self.track] + self.turn - 1

    def _repeat(self, values: Ints) -> Ints:
        """From one value (R,) of each track to one of each step, track after track."""
        return np.repeat(values, self.turn[self.last])

    def counted(self, flags: npt.NDArray[np.bool_], start: Ints) -> Ints:
        """How many of its track's steps had the flag up to each step (N,), counting on from `start` (R,)."""
        there = np.empty(len(flags), np.int64)
        there[self._sorted] = flags
        total = there.cumsum()
        total += self._repeat(start - total[self._first] + there[self._first])
        result: Ints = total[self._sorted]
        return result

    def running(self, flags: npt.NDArray[np.bool_], start: Ints) -> Ints:
        """How many of its track's steps in a row had the flag up to each step (N,), counting on from `start` (R,)."""
        there = np.empty(len(flags), np.bool_)
        there[self._sorted] = flags
        number = np.arange(len(flags))
        broken = np.maximum.accumulate(np.where(there, -1, number))
        begin = self._repeat(self._first)
        since = np.where(broken < begin, begin - 1 - self._repeat(start), broken)
        result: Ints = (number - since)[self._sorted]
        return result

    def since(self, run: Ints | int, step: Ints | int, track: Ints | int, times: tuple[Ints, Ints]) -> Ints:
        """The times of the first steps of some steps' runs, of these tracks. run: how long each is so far; times: of
        the steps (N,), and (R,) of the first steps of runs from before.
        """
        ts, before = times
        begin = self.turn[step] - run
        first = np.array(self.starts)[np.maximum(begin, 0)] - self.tracks + track
        return np.where(begin < 0, before[track], ts[first])

    def latest(self, values: Ints, start: Ints) -> Ints:
        """The last of its track's values that isn't 0, up to each step (N,), else that of `start` (R,)."""
        there = np.empty(len(values), np.int64)
        there[self._sorted] = values
        at = np.maximum.accumulate(np.where(there != 0, np.arange(len(there)), -1))
        result: Ints = np.where(at < self._repeat(self._first), self._repeat(start), there[at])[self._sorted]
        return result

    def largest(self, counts: Ints, start: Ints) -> Ints:
        """The largest of its track's counts up to each step (N,), and of `start` (R,)."""
        ranked = np.empty(len(counts), np.int64)
        ranked[self._sorted] = counts
        ranked[self._first] = np.maximum(ranked[self._first], start)
        ranked += self._repeat(np.arange(self.tracks) * RANK)
        result: Ints = (np.maximum.accumulate(ranked) % RANK)[self._sorted]
        return result
