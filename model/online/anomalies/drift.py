"""Errors of the forecasts that are worse than usual, and than the naive ones."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from model.online.anomalies.columns import Mean, Number, State
from model.online.anomalies.distances import Distances, Floats, Inputs
from model.online.anomalies.places import Places
from model.online.tracks import Ints

WORSE, NAIVE_WORSE = 2.0, 1.2
"""Drift: errors lately, as a multiple of the usual ones and of the naive ones."""
RECOVERED = 1.3
"""A drift is over at so many times the usual errors."""

Bools = npt.NDArray[np.bool_]
_Value = TypeVar("_Value", float, Floats)


class Worse:
    """For how long errors have been worse, at the steps (N,) of a batch."""

    def __init__(self, places: Places, distances: Distances, inputs: Inputs, numbers: Ints) -> None:
        """numbers: (R,Number), from before."""
        self._places, self._times = places, (inputs.ts, numbers[:, Number.WORSE_TS].copy())
        means = distances.means[:, places.steps]
        self._errors = means[Mean.ERROR], means[Mean.USUAL], means[Mean.NAIVE]
        self._any = bool((self._errors[0] > WORSE * self._errors[1]).any())
        self.steps = np.zeros(len(inputs.ts), np.int64)
        """On how many in a row they have been."""
        if self._any:
            self.steps = places.running(is_worse(*self._errors), numbers[:, Number.WORSE])
        self._by, self.another = self._versions(inputs.by, numbers[:, Number.BY])

    def _versions(self, by: Ints, known: Ints) -> tuple[Ints, Bools]:
        """(N,) the version that the newest error is of, and whether it is another one than before."""
        if by[0] and (by == by[0]).all() and (known == by[0]).all():
            return by, np.zeros(len(by), np.bool_)
        latest = self._places.latest(by, known)
        before = np.concatenate((known, latest))[self._places.before]
        return latest, (latest != before) & (before != 0)

    def since(self, step: Ints | int, track: Ints | int) -> Ints:
        """When the first of these was, for some steps, of these tracks; 0 where errors aren't worse."""
        steps = self.steps[step]
        return np.where(steps > 0, self._places.since(np.maximum(steps, 1), step, track, self._times), 0)

    def closer(self, state: Ints, long: int) -> Bools:
        """(N,) where a drift begins, after `long` such steps, or ends, or would have. state: (R,) of the tracks."""
        begins: Bools = self.steps >= long
        if self._any:
            begins |= self.another & (self.steps > 0)
        if not (drifting := state & State.DRIFT != 0).any():
            return begins
        return np.where(drifting[self._places.track], is_recovered(*self._errors) | self.another, begins)

    def store(self, numbers: Ints) -> None:
        """Store what is there after each track's last step. numbers: (R,Number)."""
        last = self._places.last
        numbers[:, Number.WORSE], numbers[:, Number.BY] = self.steps[last], self._by[last]
        since = self.since(last, np.arange(self._places.tracks)) if self._any else 0
        drifting = numbers[:, Number.STATE] & State.DRIFT != 0
        numbers[:, Number.WORSE_TS] = np.where(drifting, numbers[:, Number.WORSE_TS], since)


def is_worse(error: _Value, usual: _Value, naive: _Value) -> Any:
    """Whether the forecast's errors are worse than usual and than the naive ones."""
    return (error > WORSE * usual) & (error > NAIVE_WORSE * naive)


def is_recovered(error: _Value, usual: _Value, naive: _Value) -> Any:
    """Whether errors that were are so no longer."""
    return (error < RECOVERED * usual) | (error < naive)
