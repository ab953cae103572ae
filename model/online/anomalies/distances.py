"""How far each step is from what was expected, and what is learnt of it.

R tracks   N steps   P = R + N places (places.py)   M means   S distances, with three records each: the largest so far
"""

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.online.anomalies.columns import Distance, Mean, Number, State
from model.online.anomalies.places import Places
from model.online.tracks import Ints, Tracks

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

LARGEST = 1e30
"""Values are taken as at most so large here: whatever is computed of them is finite."""
SMALLEST = 1e-36
"""Distances below are none."""
FORGET = np.float32(1 - 1e-5)
"""Records fade by this at each step."""
GROWTH = np.float32(3)
"""A distance counts as at most so many times the lowest record."""
MOST_NOVEL = 1e6
"""The largest multiple of a record."""
TINY = 1e4
"""A value counts as at most so many times smaller than usual."""
SIZES = slice(Mean.SMALL, Mean.ALL)
CLIP = np.where(np.arange(Mean.ALL) < SIZES.start, 0.0, 8.0)
"""A size counts as at most so many times its mean."""
SETTLED = 3334
"""From so many values on their means move at rates of their own."""
OF = np.array([0] * 4 + [2] + [0] * 3 + [2] + [1] * 2)
"""Whether each mean is of values, of errors, or of naive errors."""


class Inputs(NamedTuple):
    """The steps of a batch."""

    value: Floats
    """(P,)."""
    last: Floats
    """(N,): the values before."""
    error: Floats
    """(N,), as the following ones: of the forecast, NaN where there is none."""
    naive: Floats
    """Of the seasonal naive forecast."""
    inside: Floats32
    """Sizes of errors that are none, NaN for 0."""
    step: Ints
    ts: Ints
    by: Ints
    """The version that each error is of, 0 where there is none."""


class Distances:
    """Of a batch's steps. A track's own depend on that track alone, to the bit."""

    def __init__(self, places: Places, tracks: Tracks, inputs: Inputs, rates: Floats) -> None:
        """rates: (M,1)."""
        self._places, self._inside = places, inputs.inside
        self._means, self._new, self._rates = (np.empty((places.steps.stop, Mean.ALL)) for _ in range(3))
        self._means[: places.tracks] = tracks["anomaly_means"]
        self.means = self._means.T
        """(M,P): after each step."""
        self._far = np.empty((Distance.ALL, places.steps.stop), np.float32)
        self.counts = self._enter(inputs, tracks["anomaly_numbers"], rates)
        """(3,N): how many values, errors and naive errors its track has had at each step."""
        self._usual = self._rates[places.steps, Mean.USUAL].copy()
        """(N,): the rates at which usual errors are learnt, but while a track's forecasts drift."""
        drifting = tracks["anomaly_numbers"][:, Number.STATE] & State.DRIFT != 0
        if drifting.any():
            self._rates[places.steps, Mean.USUAL] *= ~drifting[places.track]
        self._learn(places.pairs)
        self._measure(places.steps)
        self.records = [tracks["anomaly_records"].transpose(1, 2, 0).copy()]
        """(3,S,R) before, then after each round (3,S,n), of its n tracks."""
        lowest = self._keep()
        self.novelty = np.empty((Distance.ALL, places.steps.stop))
        """(S,P): distances in multiples of the lowest record before."""
        self._compare(places.steps, lowest)

    def _enter(self, inputs: Inputs, numbers: Ints, rates: Floats) -> Ints:
        """Enter what the means are of, and their rates: 0 where there is nothing new. The counts."""
        places, value = self._places, inputs.value[self._places.steps]
        errors = np.empty((2, len(value)))
        errors[0], errors[1] = inputs.error, inputs.naive
        sizes = np.abs(errors)
        there = None if sizes.max() <= 4 * LARGEST else sizes <= 4 * LARGEST
        if there is not None:
            errors[~there] = sizes[~there] = 0
        new = self._new.T[:, places.steps]
        new[: Mean.DAYS + 1] = value
        new[Mean.OFFSET] = errors[1]
        np.abs(value, out=new[Mean.SMALL])
        new[Mean.SIZE] = new[Mean.SMALL]
        np.abs(value - inputs.last, out=new[Mean.MOVE])
        new[Mean.NAIVE] = sizes[1]
        new[Mean.ERROR : Mean.USUAL + 1] = sizes[0]
        self._far[Distance.ERROR : Distance.NAIVE + 1, places.steps] = sizes
        return self._count(numbers, rates, there)

    def _count(self, numbers: Ints, rates: Floats, there: npt.NDArray[np.bool_] | None) -> Ints:
        """Count, and enter the rates. there: (2,N) whether there are errors, and naive ones; None: all."""
        places, before = self._places, numbers.T[: Number.NAIVES + 1]
        counts = before.take(places.track, axis=1)
        counts += places.turn
        if there is not None:
            for number, each in zip((Number.ERRORS, Number.NAIVES), there, strict=True):
                counts[number] = places.counted(each, before[number])
        own = self._rates.T[:, places.steps]
        if there is None and before.min() >= SETTLED:
            own[:] = rates
            return counts
        np.maximum(
            rates, (1 / np.maximum(counts, 1)).take(OF, axis=0), out=own
        )  # at first each is the mean of all so far
        own[Mean.MOVE, : places.tracks][before[Number.VALUES] == 0] = 0
        if there is not None:
            own[[Mean.ERROR, Mean.USUAL]] *= there[0]
            own[[Mean.OFFSET, Mean.NAIVE]] *= there[1]
        return counts

    def _learn(self, pairs: list[tuple[slice, slice]]) -> None:
        """Move the means after the places before, to those here; of sizes by no more than several times them."""
        means, new, rates = self._means, self._new, self._rates
        first, _ = pairs[0]
        unknown = not means[first, SIZES].all()  # one that is not 0 never gets to be
        clip, least = _limits(1 << (first.stop - first.start - 1).bit_length())
        for before, here in pairs:
            was, now, size = means[before], means[here], here.stop - here.start
            np.multiply(was, clip[:size], out=now)
            now += least[:size]
            if unknown:
                now[now == 0] = 4 * LARGEST
            np.minimum(now, new[here], out=now)
            now -= was
            now *= rates[here]
            now += was

    def _measure(self, places: slice | Ints) -> None:
        """How far the means are from what was expected."""
        means, far = self.means, self._far
        apart = means[: Mean.SHORT + 1, places] - means[Mean.LONG : Mean.DAYS + 1, places]
        far[: Distance.SHORT + 1, places] = np.abs(apart)
        far[Distance.OFFSET, places] = np.abs(means[Mean.OFFSET, places])
        smaller = means[Mean.SIZE, places] / (means[Mean.SMALL, places] + 1e-100)
        far[Distance.SMALL, places] = np.minimum(smaller, TINY)

    def _keep(self) -> Floats32:
        """Round by round the records; (S,N) the lowest before each step."""
        records, lowest = self.records, list[Floats32]()
        unknown = not records[0][0].all()  # as above
        for _, here in self._places.pairs:
            was = records[-1][..., : here.stop - here.start]
            lowest.append(was[0])
            records.append(_kept(was, self._far[:, here], unknown=unknown))
        return np.concatenate(lowest, axis=1)

    def _compare(self, places: slice, lowest: Floats32) -> None:
        """Compare distances with the lowest records before, and the error's with the issued margin as well."""
        first = self._places.tracks
        nearest = np.maximum(lowest, 1e-9 * self.means[Mean.SIZE, places] + SMALLEST)
        inside = self._inside[places.start - first : places.stop - first]
        np.fmax(nearest[Distance.ERROR], inside, out=nearest[Distance.ERROR])
        np.minimum(self._far[:, places] / nearest, MOST_NOVEL, out=self.novelty[:, places])

    def judge(self, number: int, track: int, *, disturbed: bool) -> None:
        """Keep and compare a track's step of a round again. disturbed: nothing is learnt of it."""
        place, one = self._places.starts[number] + track, slice(track, track + 1)
        here, was = slice(place, place + 1), self.records[number][..., one]
        kept = was if disturbed else _kept(was, self._far[:, here], unknown=not was[0].all())
        self.records[number + 1][..., one] = kept
        self._compare(here, was[0])

    def relearn(self, places: list[int], *, drifting: bool) -> None:
        """Learn again of a track's steps, behind the first of these places, after which it is another one."""
        if pairs := [(slice(before, before + 1), slice(here, here + 1)) for before, here in pairwise(places)]:
            after = np.array(places[1:])
            self._rates[after, Mean.USUAL] = 0 if drifting else self._usual[after - self._places.tracks]
            self._learn(pairs)
            self._measure(after)

    def store(self, tracks: Tracks) -> None:
        """Store what is there after each track's last step."""
        last = self._places.last
        tracks["anomaly_numbers"][:, : Number.NAIVES + 1] = self.counts[:, last].T
        tracks["anomaly_means"][:] = self._means[last + self._places.tracks]
        result = tracks["anomaly_records"].transpose(1, 2, 0)
        sizes = [records.shape[2] for records in self.records]
        for records, size, following in zip(self.records, sizes, [*sizes[1:], 0], strict=True):
            if following < size:
                result[..., following:size] = records[..., following:]


@cache
def _limits(rows: int) -> tuple[Floats, Floats]:
    """A new value is at most so many times its mean, plus so much; for some rows (n,M)."""
    clip = np.tile(CLIP, (rows, 1))
    return clip, np.where(clip == 0, 4 * LARGEST, 0.0)


def _kept(was: Floats32, far: Floats32, *, unknown: bool) -> Floats32:
    """Records (3,S,n) that have faded, with distances (S,n) among them. unknown: whether any lowest record is 0."""
    kept = was[0] * GROWTH
    if unknown:
        kept[kept == 0] = 4 * LARGEST
    np.minimum(kept, far, out=kept)
    now: Floats32 = was * FORGET
    lower, highest = now[:-1], now[-1]
    np.maximum(lower, np.minimum(kept, now[1:]), out=lower)
    np.maximum(highest, kept, out=highest)
    return now
