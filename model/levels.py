"""From raw windows in float64 to the float32 that a model's file takes, and from its forecasts back.

A few readings of a window that lie far from all others are winsorised first (model/spikes.py).

A float32 has 24 bits: at 3,000,000,000 its steps are 256. Where that is coarse beside a window's own range, the window
is moved towards zero before it is cast, and the forecast is moved back in float64. Normalisation subtracts a location
from a window (model/networks/normalization.py), so the network sees the same. Ordinary windows are not moved.

B windows   S steps of a window   F features   K horizon steps   O targets
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from model.card import AnyCard, Card
from model.spikes import winsorised

FAR, NEAR = 1024.0, 64.0
"""A window further from zero than FAR times its range is moved; its last value then lies NEAR to twice NEAR times its
range from zero, on the same side, so that a graph that clips negative forecasts clips nothing."""

LARGE, STEPS = 65_536.0, 64
"""Where it is not moved, a window beyond LARGE with fewer than STEPS steps of float32 in its range loses digits."""

OnLoss = Callable[[str], object]
Reals = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """What a card tells of its features' levels.

    `floor` (F,) is the least range of a window that counts, infinite for a feature that is never moved; `spans` (F,)
    the greatest range of a series in training, infinite for a feature that is never winsorised; `columns` (O,) are the
    targets among the features, `clipped` (O,) those whose forecasts are clipped to zero.
    """

    floor: Reals
    spans: Reals
    columns: list[int]
    clipped: tuple[bool, ...]

    @classmethod
    def of(cls, card: AnyCard) -> Self:
        """The levels of a forecaster; of any other model, and one of an earlier version, that nothing is moved."""
        if not isinstance(card, Card):
            return cls(np.array(np.inf), np.array(np.inf), [], ())
        floor, spans = (
            np.array([sizes.get(name, np.inf) for name in card.input.features]) for sizes in (card.floors, card.spans)
        )
        return cls(floor, spans, card.target_columns, card.output.clipped)

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

    def lowered(self, arrays: Arrays, on_loss: OnLoss = lambda _: None) -> tuple[Arrays, Reals | None]:
        """A model's inputs by name, with `x` (B,S,F) as float32, and what was subtracted from it.

        `on_loss` is told, in words, that readings were winsorised or that digits were lost.
        """
        given = arrays["x"]
        if given.dtype != np.float64:
            return arrays, None
        x = winsorised(given, self.spans)
        if x is not given:
            on_loss("a few readings far from all others of their window count as the nearest of these")
        shifts = self.shifts(x)
        moved = x if shifts is None else x - shifts[:, None]
        lowered = moved.astype(np.float32)
        if self._is_coarse(moved):
            on_loss("values are so large beside their changes that digits are lost in float32; train the model again")
        return {**arrays, "x": lowered}, shifts

    def _is_coarse(self, x: Reals) -> bool:
        """Whether float32 has too few steps for what varies in any window (B,S,F) of a feature that is not moved."""
        left = np.abs(x[:, -1])
        rows = np.flatnonzero(((left > LARGE) & np.isinf(self.floor)).any(axis=1))
        if not len(rows):
            return False
        size, steps = np.ptp(x[rows], axis=1), left[rows] * np.finfo(np.float32).eps
        return bool(((size < STEPS * steps) & (x[rows] != x[rows].astype(np.float32)).any(axis=1)).any())

    def raised(self, forecast: npt.NDArray[np.float32], shifts: Reals | None) -> npt.NDArray[np.floating]:
        """The forecasts (B,K,O) in raw units: float32 as the model gave them, or float64 if any window was moved."""
        if shifts is None:
            return forecast
        back = shifts[:, None, self.columns]
        raised = forecast + back
        raised = np.where(self.clipped, np.maximum(raised, 0.0), raised)
        return np.where(back == 0, forecast.astype(np.float64), raised)


UNMOVED = Levels(np.array(np.inf), np.array(np.inf), [], ())
"""The levels of a model whose windows are cast as they are."""
