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

    def since(self, step: Ints | int, track: Ints | int) -> Ints:
        """When the first of these was, for some steps at which errors are worse, of these tracks."""
        return self._places.since(self.steps, step, track, self._times)

    def closer(self, state: Ints, long: int) -> Bools:
        """(N,) where a drift begins, after `long` such steps, or ends. state: (R,) of the tracks."""
        begins: Bools = self.steps >= long
        drifting = state & State.DRIFT != 0
        return np.where(drifting[self._places.track], is_recovered(*self._errors), begins) if drifting.any() else begins

    def store(self, numbers: Ints) -> None:
        """Store what is there after each track's last step. numbers: (R,Number)."""
        last = self._places.last
        numbers[:, Number.WORSE] = self.steps[last]
        if self._any:
            [track] = ((self.steps[last] > 0) & (numbers[:, Number.STATE] & State.DRIFT == 0)).nonzero()
            numbers[track, Number.WORSE_TS] = self.since(last[track], track)


def is_worse(error: _Value, usual: _Value, naive: _Value) -> Any:
    """Whether the forecast's errors are worse than usual and than the naive ones."""
    return (error > WORSE * usual) & (error > NAIVE_WORSE * naive)


def is_recovered(error: _Value, usual: _Value, naive: _Value) -> Any:
    """Whether errors that were are so no longer."""
    return (error < RECOVERED * usual) | (error < naive)
