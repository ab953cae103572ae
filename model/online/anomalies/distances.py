"""How far each step is from what was expected, and what is learnt of it.

R tracks   N steps   P = R + N places (places.py)   M means   S distances, with three records each: the largest so far
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from model.online.anomalies.columns import Distance, Mean, Number
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
OF = [0] * 4 + [2] + [0] * 3 + [2] + [1] * 2
"""Whether each mean is of values, of errors, or of naive errors."""


class Distances:
    """Of a batch's steps. A track's own depend on that track alone, to the bit."""

    def __init__(
        self, places: Places, tracks: Tracks, value: Floats, error: Floats, naive: Floats, inside: Floats, rates: Floats
    ) -> None:
        """value: (P,); error, naive: (N,), NaN where there is none; inside: (N,) sizes of errors that are none, NaN for
        0; rates: (M,1).
        """
        self._places = places
        self._inside = inside.astype(np.float32)
        self._means = np.empty((places.steps.stop, Mean.ALL))
        self._means[: places.tracks] = tracks["anomaly_means"]
        self.means = self._means.T
        """(M,P): after each step."""
        self._errors, self.counts, self._rates = self._count(tracks["anomaly_numbers"], error, naive, rates)
        """counts: (3,N): how many values, errors and naive errors its track has had at each step."""
        self._new = self._inputs(value)
        self._learn(places.pairs)
        self._far = np.empty((Distance.ALL, places.steps.stop), np.float32)
        self._measure(places.steps)
        self.records = [tracks["anomaly_records"].transpose(1, 2, 0).copy()]
        """(3,S,R) before, then after each round (3,S,n), of its n tracks."""
        lowest = self._keep()
        self.novelty = np.empty((Distance.ALL, places.steps.stop), np.float32)
        """(S,P): distances in multiples of the lowest record before."""
        self._compare(places.steps, lowest)

    def _count(self, numbers: Ints, error: Floats, naive: Floats, rates: Floats) -> tuple[Floats, Ints, Floats]:
        """The errors (2,N), 0 where there is none; counts; and the rate of each mean (P,M), 0 where there is nothing
        new: at first each is the mean of all so far.
        """
        places, errors = self._places, np.stack((error, naive))
        counts = numbers.T[: Number.NAIVES + 1].take(places.track, axis=1)
        counts += places.round + 1
        there = np.abs(errors) <= 4 * LARGEST
        every = bool(there.all())
        if not every:
            errors[~there] = 0
            counts[Number.ERRORS] = places.counted(there[0], numbers[:, Number.ERRORS])
            counts[Number.NAIVES] = places.counted(there[1], numbers[:, Number.NAIVES])
        all_rates = np.maximum(rates, (1 / np.maximum(counts, 1))[OF])
        all_rates[Mean.MOVE, : places.tracks][numbers[:, Number.VALUES] == 0] = 0
        if not every:
            all_rates[[Mean.ERROR, Mean.USUAL]] *= there[0]
            all_rates[[Mean.OFFSET, Mean.NAIVE]] *= there[1]
        result = np.empty_like(self._means)
        result[places.steps] = all_rates.T
        return errors, counts, result

    def _inputs(self, value: Floats) -> Floats:
        """(P,M) what the means are of."""
        steps, (error, naive) = self._places.steps, self._errors
        new, result = np.empty((Mean.ALL, len(error))), np.empty_like(self._means)
        new[: Mean.DAYS + 1] = new[Mean.SMALL] = new[Mean.SIZE] = value[steps]
        new[Mean.MOVE] = value[steps] - value[self._places.before]
        new[Mean.OFFSET] = new[Mean.NAIVE] = naive
        new[Mean.ERROR] = new[Mean.USUAL] = error
        np.abs(new[SIZES], out=new[SIZES])
        result[steps] = new.T
        return result

    def _learn(self, pairs: list[tuple[slice, slice]]) -> None:
        """Move the means after the places before, to those here; of sizes by no more than several times them."""
        means, new, rates = self._means, self._new, self._rates
        first, _ = pairs[0]
        unknown = not means[first, SIZES].all()  # one that is not 0 never gets to be
        most = first.stop - first.start
        clip, signed = np.tile(CLIP, (most, 1)), np.tile(np.where(CLIP == 0, 4 * LARGEST, 0.0), (most, 1))
        for before, here in pairs:
            was, now, size = means[before], means[here], here.stop - here.start
            np.multiply(was, clip[:size], out=now)
            now += signed[:size]
            if unknown:
                now[now == 0] = 4 * LARGEST
            np.minimum(now, new[here], out=now)
            now -= was
            now *= rates[here]
            now += was

    def _measure(self, places: slice | Ints) -> None:
        """How far the means and errors are from what was expected."""
        means, far, errors = self.means, self._far, self._errors
        far[: Distance.SHORT + 1, places] = means[: Mean.SHORT + 1, places] - means[Mean.LONG : Mean.DAYS + 1, places]
        far[Distance.OFFSET, places] = means[Mean.OFFSET, places]
        smaller = means[Mean.SIZE, places] / (means[Mean.SMALL, places] + 1e-100)
        far[Distance.SMALL, places] = np.minimum(smaller, TINY)
        if isinstance(places, slice):
            far[Distance.ERROR : Distance.NAIVE + 1, places] = errors
        far[:, places] = np.abs(far[:, places])

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

    def relearn(self, places: list[int]) -> None:
        """Learn again of a track's steps, behind the first of these places, whose means have changed."""
        if pairs := [(slice(before, before + 1), slice(here, here + 1)) for before, here in pairwise(places)]:
            self._learn(pairs)
            self._measure(np.array(places[1:]))

    def last_records(self) -> Floats32:
        """(R,3,S): after each track's last step."""
        result = np.empty_like(self.records[0])
        for records in self.records:
            result[..., : records.shape[2]] = records
        return result.transpose(2, 0, 1)


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
