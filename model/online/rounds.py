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
    first: list[int]
    """(U,): where in the computed order each series has its first step."""

    @classmethod
    def of(cls, row: Ints) -> "Rounds":
        """From each step's series (B,), in order of arrival."""
        found, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        most = np.argsort(-counts, kind="stable")
        series = np.empty_like(most)
        series[most] = np.arange(len(most))
        series = series[inverse]
        by_series = np.argsort(series, kind="stable")
        ends = np.cumsum(counts[most])
        number = np.empty_like(series)
        number[by_series] = np.arange(len(row)) - np.repeat(ends - counts[most], counts[most])
        sizes = np.bincount(number)
        stops = np.cumsum(sizes)
        parts = [slice(stop - size, stop) for stop, size in zip(stops.tolist(), sizes.tolist(), strict=True)]
        return cls(found[most], np.lexsort((series, number)), parts, list(range(len(found))))

    def origins(self, step: Ints, ahead: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
        """For each step (B,), in computed order, and scored step (H,): whether the step so far before it is in the batch
        too, and at which place of the computed order: (B,H) each.
        """
        series = np.concatenate([np.arange(part.stop - part.start) for part in self.parts])
        offset = step - step[: len(self.rows)][series]
        key = series * FAR + offset
        by_key = np.argsort(key, kind="stable")
        wanted = key[:, None] - ahead
        place = np.minimum(np.searchsorted(key[by_key], wanted), len(key) - 1)
        origin = by_key[place]
        return key[origin] == wanted, origin
