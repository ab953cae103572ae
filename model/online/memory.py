"""What was forecast for the steps to come, until they are observed: a ring of h slots for each scored step h.

The forecast from step s for step s + h lies in slot (s + h) mod h of the ring of h. Once step s + h is observed, it is
read, and that step's own forecast, for s + 2h, takes its place.

R tracks   H scored steps   N rows of a batch
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.online.tracks import Field, Fields, Ints, TrackStore

Reals = npt.NDArray[np.float64]
SLOT: Mapping[str, str] = {
    "mark": "<u4",
    "forecast": "<f8",
    "naive": "<f8",
    "lower": "<f4",
    "upper": "<f4",
    "by": "<u4",
}
"""Fields of a slot. `mark` is the step that the forecast is for, modulo LARGEST, plus one; 0 in an empty slot. `lower`
and `upper` are the interval's margins, NaN without one; `by` identifies the model's version."""


LARGEST = 2**32 - 1


class Remembered(NamedTuple):
    """What was forecast for a step: (N,H) each."""

    known: npt.NDArray[np.bool_]
    forecast: Reals
    naive: Reals
    margins: npt.NDArray[np.float32]
    """(N,H,2): lower and upper."""
    by: npt.NDArray[np.uint32]


class Memory:
    """The rings of all tracks in a store."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        self._steps = np.array(steps, np.int64)
        self._slots = int(self._steps.sum())
        self._first = np.cumsum(self._steps) - self._steps

    @property
    def fields(self) -> Fields:
        """The slots' fields."""
        return {name: Field(dtype, (self._slots,)) for name, dtype in SLOT.items()}

    def recall(self, store: TrackStore, rows: Ints, step: Ints) -> Remembered:
        """What was forecast for these steps (N,) of the tracks at `rows` (N,)."""
        at = self._places(rows, step)
        slot = {name: store.array(name).reshape(-1).take(at) for name in SLOT}
        known = slot["mark"] == _mark(step[:, None])
        return Remembered(
            known, slot["forecast"], slot["naive"], np.stack([slot["lower"], slot["upper"]], axis=2), slot["by"]
        )

    def remember(self, store: TrackStore, rows: Ints, step: Ints, made: Remembered) -> None:
        """Keep what is forecast from these steps (N,), in order: of two in one slot the later stays."""
        at = self._places(rows, step)
        values: Mapping[str, npt.NDArray[Any]] = {
            "mark": np.where(made.known, _mark(step[:, None] + self._steps), np.uint32(0)),
            "forecast": made.forecast,
            "naive": made.naive,
            "lower": made.margins[..., 0],
            "upper": made.margins[..., 1],
            "by": made.by,
        }
        for name, laid in values.items():
            store.array(name).reshape(-1)[at] = laid

    def holds(self, store: TrackStore, row: int, number: int, steps: Ints) -> npt.NDArray[np.bool_]:
        """Whether there is a forecast for each of these steps of the track at `row`, by the ring of the scored step of
        this number.
        """
        ahead, first = int(self._steps[number]), int(self._first[number])
        held: npt.NDArray[np.bool_] = store.array("mark")[row, first + steps % ahead] == _mark(steps)
        return held

    def _places(self, rows: Ints, step: Ints) -> Ints:
        places: Ints = (rows * self._slots)[:, None] + self._first + step[:, None] % self._steps
        return places


def _mark(step: Ints) -> npt.NDArray[np.uint32]:
    return (step % LARGEST + 1).astype(np.uint32)
