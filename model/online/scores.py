"""Live scores: sums of errors by series, target, scored step and model version, in buckets of event time.

A bucket is closed by its series' first step after it. All sums are added in the order of the steps, so that they are
the same to the bit however the steps were batched.

R tracks   H scored steps   M sums
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.online.tracks import Field, Fields, Ints, Tracks

Reals = npt.NDArray[np.float64]
SUMS = (
    "count",
    "squared_error",
    "absolute_error",
    "naive_squared_error",
    "naive_absolute_error",
    "intervals",
    "inside",
    "width",
    "winkler",
)
"""What is summed over the scored forecasts: how many, their errors and the seasonal naive's for the same steps; of
those with an interval how many, how many actual values were inside, and the intervals' widths and Winkler scores."""
COUNT, ERROR, NAIVE, INTERVALS = map(SUMS.index, ("count", "absolute_error", "naive_absolute_error", "intervals"))
"""From INTERVALS on sums are of intervals."""
Parked = dict[tuple[int, int], Reals]
"""Sums (M,) by (scored step's number, version): of versions that are not the newest at a step."""


class Part(NamedTuple):
    """The sums of one target and version."""

    target: int
    by: int
    sums: Reals
    """(H,M)."""


class Bucket(NamedTuple):
    """A closed bucket of one series."""

    start: int
    """Epoch milliseconds."""
    until: int
    """The time of its last observed step."""
    parts: list[Part]
    unscored: list[list[int]]
    """By target and scored step: forecasts for steps that were never observed."""
    scale: list[float | None]
    """By target: the seasonal naive's mean absolute error one step ahead, in all the series' buckets so far."""


def point_sums(value: Reals, forecast: Reals, naive: Reals, lower: Reals, upper: Reals, coverage: float) -> Reals:
    """What each point adds (N,H,M): actual values (N,1), and what was forecast for them (N,H), NaN where nothing was.

    `lower` and `upper` (N,H) are the interval's bounds, NaN without one.
    """
    sums = np.empty((*forecast.shape, len(SUMS)))
    scored, bounded = ~np.isnan(forecast), ~np.isnan(lower)
    sums[..., COUNT], sums[..., INTERVALS] = scored, bounded
    for first, error in ((1, value - forecast), (3, value - naive)):
        np.multiply(error, error, out=sums[..., first])
        np.abs(error, out=sums[..., first + 1])
    if not scored.all():
        sums[~scored] = 0.0
    if not bounded.any():
        sums[..., INTERVALS:] = 0.0
        return sums
    outside = np.maximum(value - upper, 0.0)
    outside += np.maximum(lower - value, 0.0)
    inside, width, winkler = (sums[..., each] for each in range(INTERVALS + 1, len(SUMS)))
    inside[:] = outside == 0
    np.subtract(upper, lower, out=width)
    outside *= 2 / (1 - coverage)
    np.add(width, outside, out=winkler)
    if not (bounded & scored).all():
        sums[..., INTERVALS:][~(bounded & scored)] = 0.0
    return sums


class Scores:
    """The open buckets of all tracks. `rows` are the tracks' rows in the store."""

    def __init__(self, scored: int, every: int) -> None:
        self._every = every
        self._shape = (scored, len(SUMS))
        self.parked: dict[int, Parked] = {}
        """By row of the store."""
        self.fields: Fields = {
            "sums": Field("<f8", self._shape),
            "sums_by": Field("<u4", (scored,)),
            "unscored": Field("<u4", (scored,)),
            "seen": Field("|u1"),
            "observed": Field("<i8"),
            "bucket": Field("<i8"),
            "until": Field("<i8"),
            "total": Field("<f8", (2,)),
        }
        """Besides the open bucket's `sums`: whether any step was `seen`, the last `observed` one and its time `until`,
        the bucket's start, and in `total` the naive's absolute errors one step ahead, and how many."""

    def start(self, ts: Ints) -> Ints:
        """The starts of the buckets that hold these times."""
        return ts // self._every * self._every

    def add(self, tracks: Tracks, rows: Ints, sums: Reals, by: npt.NDArray[np.uint32]) -> None:
        """Add each track's newest point (R,H,M) by these versions (R,H), where they are not all the newest."""
        current = tracks["sums_by"]
        other = (by != current) & (sums[..., COUNT] > 0)
        for track, number in zip(*(axis.tolist() for axis in np.nonzero(other)), strict=True):
            parked = self.parked.setdefault(int(rows[track]), {})
            if (before := int(current[track, number])) and tracks["sums"][track, number, COUNT]:
                parked[number, before] = tracks["sums"][track, number].copy()
            after = int(by[track, number])
            tracks["sums"][track, number] = parked.pop((number, after), 0.0)
            current[track, number] = after
        tracks["sums"] += sums

    def close(self, tracks: Tracks, rows: Ints, series: slice) -> Bucket | None:
        """Close the open bucket of the series with these tracks; None if nothing was scored in it."""
        sums, by, unscored = tracks["sums"][series], tracks["sums_by"][series], tracks["unscored"][series]
        parts = [
            part
            for target, (of_target, versions) in enumerate(zip(sums, by, strict=True))
            for part in self._parts(target, of_target, versions, self.parked.pop(int(rows[series.start + target]), {}))
        ]
        total = tracks["total"][series]
        for part in parts:
            total[part.target] += part.sums[0, NAIVE], part.sums[0, COUNT]
        start, until = int(tracks["bucket"][series.start]), int(tracks["until"][series.start])
        scale = [float(error / count) if count else None for error, count in total.tolist()]
        closed = Bucket(start, until, parts, unscored.tolist(), scale)
        sums[:], unscored[:] = 0.0, 0
        return closed if parts or any(map(any, closed.unscored)) else None

    def _parts(self, target: int, sums: Reals, by: npt.NDArray[np.uint32], parked: Parked) -> Iterator[Part]:
        """One target's sums, version by version."""
        if not parked and len(newest := set(by.tolist())) == 1:
            if any(sums[:, COUNT].tolist()):
                yield Part(target, newest.pop(), sums.copy())
            return
        held = parked | {(number, version): sums[number].copy() for number, version in enumerate(by.tolist())}
        versions: dict[int, Reals] = {}
        for (number, version), points in held.items():
            if points[COUNT]:
                versions.setdefault(version, np.zeros(self._shape))[number] = points
        yield from (Part(target, version, versions[version]) for version in sorted(versions))
