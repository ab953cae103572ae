"""Where the steps of a batch lie in its arrays.

R tracks   N steps, in rounds: in each, the first of the tracks have a step

The arrays have R + N columns: the tracks' states before the batch, then the steps, round after round. The number of a
column is its place.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.online.tracks import Ints

RANK = 1 << 40
"""More than any count."""


class Places:
    """The places of a batch's steps."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """sizes: how many tracks have a step in each round, R in the first, then never more."""
        rounds, self.tracks = np.array(sizes), sizes[0]
        stops = rounds.cumsum()
        starts = stops - rounds + self.tracks
        self.starts: list[int] = starts.tolist()
        """Each round's first place."""
        count, number = int(stops[-1]), np.arange(len(sizes))
        self.steps = slice(self.tracks, self.tracks + count)
        self.round: Ints = np.repeat(number, rounds)
        """(N,)."""
        place = np.arange(count)
        self.track: Ints = place - np.repeat(starts - self.tracks, rounds)
        """(N,)."""
        before = np.concatenate(([self.tracks], rounds[:-1]))
        self.before: Ints = place + self.tracks - np.repeat(before, rounds)
        """(N,): the place of the same track's step before."""
        self.pairs = [
            (slice(start - size, start - size + now), slice(start, start + now))
            for start, size, now in zip(self.starts, before.tolist(), sizes, strict=True)
        ]
        """By round, the places before, and of the round."""
        self.lengths: Ints = np.searchsorted(-rounds, -np.arange(self.tracks))
        """(R,): the steps of each track."""
        self.last: Ints = starts[self.lengths - 1] + np.arange(self.tracks)
        """(R,): the place of each track's last step."""
        self._first = self.lengths.cumsum() - self.lengths
        self._sorted = self._first[self.track] + self.round

    def counted(self, flags: npt.NDArray[np.bool_], start: Ints) -> Ints:
        """How many of its track's steps had the flag up to each step (N,), counting on from `start` (R,)."""
        there = np.empty(len(flags), np.int64)
        there[self._sorted] = flags
        total = there.cumsum()
        total += np.repeat(start - total[self._first] + there[self._first], self.lengths)
        return total[self._sorted]

    def running(self, flags: npt.NDArray[np.bool_], start: Ints) -> Ints:
        """How many of its track's steps in a row had the flag up to each step (N,), counting on from `start` (R,)."""
        there = np.empty(len(flags), np.bool_)
        there[self._sorted] = flags
        number = np.arange(len(flags))
        broken = np.maximum.accumulate(np.where(there, -1, number))
        begin = np.repeat(self._first, self.lengths)
        since = np.where(broken < begin, begin - 1 - np.repeat(start, self.lengths), broken)
        result: Ints = (number - since)[self._sorted]
        return result

    def largest(self, counts: Ints, start: Ints) -> Ints:
        """The largest of its track's counts up to each step (N,), and of `start` (R,)."""
        ranked = np.empty(len(counts), np.int64)
        ranked[self._sorted] = counts
        ranked[self._first] = np.maximum(ranked[self._first], start)
        ranked += np.repeat(np.arange(self.tracks) * RANK, self.lengths)
        result: Ints = (np.maximum.accumulate(ranked) % RANK)[self._sorted]
        return result
