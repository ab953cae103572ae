"""The steps that a batch observes, in rounds: in each a series occurs once, and all its series are computed at once.

Series are ordered by how often they occur, so that a round's series are the first n of a batch's, and its rows follow
each other: views, and nothing is copied.

B observed steps   U series   H scored steps
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.online.tracks import Ints

FAR = 1 << 40
"""More steps than two steps of a batch lie apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """The order in which a batch is computed."""

    rows: Ints
    """(U,): the series' rows, those that occur most first."""
    order: Ints
    """(B,): the batch's rows, round after round."""
    parts: list[slice]
    """Each round's part of `order`."""

    @classmethod
    def of(cls, row: Ints) -> "Rounds":
        """From each step's series (B,), in order of arrival."""
        by_row = np.argsort(row, kind="stable")
        ordered = row[by_row]
        begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        counts = np.diff(begins, append=len(row))
        most = np.argsort(-counts, kind="stable")
        rank = np.empty_like(most)
        rank[most] = np.arange(len(most))
        number, series = np.empty_like(by_row), np.empty_like(by_row)
        number[by_row] = np.arange(len(row)) - np.repeat(begins, counts)
        series[by_row] = np.repeat(rank, counts)
        sizes = np.bincount(number)
        stops = np.cumsum(sizes).tolist()
        parts = [slice(stop - size, stop) for stop, size in zip(stops, sizes.tolist(), strict=True)]
        return cls(ordered[begins[most]], np.argsort(number * len(most) + series), parts)

    def origins(self, step: Ints, ahead: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
        """For each step (B,) and scored step (H,): whether the step so far before it is in the batch too, and at which
        place of the computed order, in which steps are given: (B,H) each.
        """
        series = np.concatenate([np.arange(part.stop - part.start) for part in self.parts])
        offset = step - step[: len(self.rows)][series]
        key = series * FAR + offset
        by_key = np.argsort(key, kind="stable")
        wanted = key[:, None] - ahead
        place = np.minimum(np.searchsorted(key[by_key], wanted), len(key) - 1)
        origin = by_key[place]
        return key[origin] == wanted, origin
