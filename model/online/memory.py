"""What was forecast for the steps to come, until they are observed: a ring of h slots for each scored step h.

The forecast from step s for step s + h lies in slot (s + h) mod h of the ring of h. Once step s + h is observed, it is
read, and that step's own forecast, for s + 2h, takes its place.

R tracks   H scored steps   N rows of a batch
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.online.tracks import Field, Fields, Ints, TrackStore

Reals = npt.NDArray[np.float64]
SLOT: Fields = {"keys": Field("<u4", (2,)), "forecasts": Field("<f8", (2,)), "issued": Field("<f4", (2,))}
"""Fields of a slot. `keys`: the step that the forecast is for, modulo LARGEST, plus one, or 0 in an empty slot; and
what identifies the model's version. `forecasts`: the model's and the seasonal naive's. `issued`: the interval's lower
and upper margin, NaN without one."""
PAIR = {"keys": np.uint64, "forecasts": np.complex128, "issued": np.uint64}
"""A type as large as a field's two numbers."""
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
        return {name: Field(field.dtype, (self._slots, *field.shape)) for name, field in SLOT.items()}

    def recall(self, store: TrackStore, rows: Ints, step: Ints) -> Remembered:
        """What was forecast for these steps (N,) of the tracks at `rows` (N,)."""
        at = self._places(rows, step)
        keys, forecasts, issued = (_slots(store, name).take(at).view(SLOT[name].dtype) for name in SLOT)
        keys, forecasts, issued = (each.reshape(*at.shape, 2) for each in (keys, forecasts, issued))
        known = keys[..., 0] == _mark(step[:, None])
        return Remembered(known, forecasts[..., 0], forecasts[..., 1], issued, keys[..., 1])

    def remember(self, store: TrackStore, rows: Ints, step: Ints, made: Remembered) -> None:
        """Keep what is forecast from these steps (N,), in order: of two in one slot the later stays."""
        at = self._places(rows, step)
        keys, forecasts = np.empty((*at.shape, 2), np.uint32), np.empty((*at.shape, 2))
        np.multiply(_mark(step[:, None] + self._steps), made.known, out=keys[..., 0])
        keys[..., 1], forecasts[..., 0], forecasts[..., 1] = made.by, made.forecast, made.naive
        for name, laid in zip(SLOT, (keys, forecasts, made.margins), strict=True):
            _slots(store, name)[at] = np.ascontiguousarray(laid).view(PAIR[name])[..., 0]

    def holds(self, store: TrackStore, row: int, number: int, steps: Ints) -> npt.NDArray[np.bool_]:
        """Whether there is a forecast for each of these steps of the track at `row`, by the ring of the scored step of
        this number.
        """
        ahead, first = int(self._steps[number]), int(self._first[number])
        held: npt.NDArray[np.bool_] = store.array("keys")[row, first + steps % ahead, 0] == _mark(steps)
        return held

    def _places(self, rows: Ints, step: Ints) -> Ints:
        places: Ints = (rows * self._slots)[:, None] + self._first + step[:, None] % self._steps
        return places


def _slots(store: TrackStore, name: str) -> npt.NDArray[Any]:
    """All slots of all tracks, each as one number: moving pairs takes three times as long."""
    return store.array(name).reshape(-1, 2).view(PAIR[name])[:, 0]


def _mark(step: Ints) -> npt.NDArray[np.uint32]:
    return (step % LARGEST + 1).astype(np.uint32)
