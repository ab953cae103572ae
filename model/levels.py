"""From raw windows in float64 to the float32 that a model's file takes, and from its forecasts back.

A float32 has 24 bits: at 3,000,000,000 its steps are 256. Where that is coarse beside a window's own range, the window
is moved towards zero before it is cast, and the forecast is moved back in float64. Normalisation subtracts a location
from a window (model/networks/normalization.py), so the network sees the same. Ordinary windows are not moved.

B windows   S steps of a window   F features   K horizon steps   O targets
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from model.card import AnyCard, Card

FAR, NEAR = 1024.0, 64.0
"""A window further from zero than FAR times its range is moved; its last value then lies NEAR to twice NEAR times its
range from zero, on the same side, so that a graph that clips negative forecasts clips nothing."""

Reals = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """What a card tells of its features' levels.

    `floor` (F,) is the least range of a window that counts, infinite for a feature that is never moved; `columns` (O,)
    are the targets among the features, `clipped` (O,) those whose forecasts are clipped to zero.
    """

    floor: Reals
    columns: list[int]
    clipped: tuple[bool, ...]

    @classmethod
    def of(cls, card: AnyCard) -> Self:
        """The levels of a forecaster; of any other model, and one of an earlier version, that nothing is moved."""
        if not isinstance(card, Card):
            return cls(np.array(np.inf), [], ())
        floor = [card.floors.get(name, np.inf) for name in card.input.features]
        return cls(np.array(floor), card.target_columns, card.output.clipped)

    def shifts(self, x: Reals) -> Reals | None:
        """What to subtract from each feature of each window (B,S,F): (B,F), 0 where it is ordinary; None if all are.

        It depends on nothing but the window, so that it is the same in training, in a stream and in any batch.
        """
        rows = np.flatnonzero(self.large(x[:, -1]).any(axis=1))
        if not len(rows):
            return None
        windows = x[rows]
        last, size = windows[:, -1], np.maximum(windows.max(axis=1) - windows.min(axis=1), self.floor)
        near = np.copysign(np.exp2(np.ceil(np.log2(NEAR * size))), last)
        shifts = np.zeros((len(x), x.shape[2]))
        shifts[rows] = np.where(np.abs(last) > FAR * size, last - near, 0.0)
        return shifts if shifts.any() else None

    def large(self, last: Reals) -> npt.NDArray[np.bool_]:
        """Which last values (B,F) may be of a window to be moved: most windows need no second look."""
        return np.abs(last) > FAR * self.floor

    def lowered(self, arrays: Arrays) -> tuple[Arrays, Reals | None]:
        """A model's inputs by name, with `x` (B,S,F) as float32, and what was subtracted from it."""
        x = arrays["x"]
        if x.dtype != np.float64:
            return arrays, None
        shifts = self.shifts(x)
        moved = x if shifts is None else x - shifts[:, None]
        return {**arrays, "x": moved.astype(np.float32)}, shifts

    def raised(self, forecast: npt.NDArray[np.float32], shifts: Reals | None) -> npt.NDArray[np.floating]:
        """The forecasts (B,K,O) in raw units: float32 as the model gave them, or float64 if any window was moved."""
        if shifts is None:
            return forecast
        back = shifts[:, None, self.columns]
        raised = forecast + back
        raised = np.where(self.clipped, np.maximum(raised, 0.0), raised)
        return np.where(back == 0, forecast.astype(np.float64), raised)


UNMOVED = Levels(np.array(np.inf), [], ())
"""The levels of a model whose windows are cast as they are."""
