"""How far a model's forecasts were from the actual values in validation: where the intervals of a new series begin.

Errors are scaled by the window that they were forecast from, so that those of all series are of one kind.

B windows   S steps of a window   R tracks: the O targets of each series in succession   H scored steps   L levels
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from tidecast.errors import DataError

Reals = npt.NDArray[np.float64]
LEVELS = (0.005, 0.01, 0.025, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.975, 0.99, 0.995)
LEAST = 0.01
"""The least scale of a window, of its target's typical one: a flat window is no promise of a flat future."""


def window_scale(window: npt.NDArray[np.floating]) -> Reals:
    """The mean absolute deviation (B,) of each window (B,S) of one feature; to the bit the same in any batch."""
    values = np.ascontiguousarray(window, np.float64)
    deviation = np.abs(values - values.mean(axis=1, keepdims=True))
    return np.asarray(deviation.mean(axis=1))


def bounded_scale(scale: Reals, typical: Reals) -> Reals:
    """Scales, `typical` where there is none (nan), and `LEAST` of that at least; the shapes broadcast."""
    return np.where(np.isnan(scale), typical, np.maximum(scale, LEAST * typical))


class Residuals(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of the scaled errors, actual - forecast, of the validation part; stored in the model card."""

    levels: tuple[float, ...]
    """L levels, ascending."""
    steps: tuple[int, ...]
    """The H scored steps of the horizon."""
    quantiles: dict[str, tuple[tuple[float, ...], ...]]
    """(H,L) for each target, in the card's order: for each step ascending, in units of the window's scale."""
    typical: dict[str, float]
    """The median scale of a window by target, raw units: for windows that are short or flat."""

    def check(self, horizon: int, targets: tuple[str, ...]) -> None:
        """Raises DataError if it is not of these targets, or steps of this horizon."""
        shapes = {tuple(map(len, steps)) for steps in self.quantiles.values()}
        if tuple(self.quantiles) != targets or set(self.typical) != set(targets):
            raise DataError(f"residuals: of {', '.join(self.quantiles)}, and the targets are {', '.join(targets)}")
        if shapes != {(len(self.levels),) * len(self.steps)} or not self.steps or not self.levels:
            raise DataError("residuals: a quantile for each step and level is missing")
        if sorted({*self.steps, 1, horizon}) != list(self.steps) or sorted(set(self.levels)) != list(self.levels):
            raise DataError(f"residuals: the steps or levels are not ascending, or not from 1 to {horizon}")

    def margins(self, coverage: float, scale: Reals) -> Reals:
        """How far below and above its forecast a value lies in this share of cases, (R,H,2) in raw units.

        `scale` (R,) are window scales, nan for the typical one. Between levels the quantiles are interpolated; beyond
        the outermost they stay as they are. A bound may lie on the forecast's other side: then its margin is negative.
        """
        tails = [(1 - coverage) / 2, (1 + coverage) / 2]
        low, high = np.array(
            [[np.interp(tails, self.levels, step) for step in steps] for steps in self.quantiles.values()]
        ).transpose(2, 0, 1)
        units = np.stack([-low, high], axis=-1)
        typical = np.array([self.typical[name] for name in self.quantiles])
        bounded = bounded_scale(scale.reshape(-1, len(typical)), typical)
        return np.asarray((bounded[:, :, None, None] * units).reshape(-1, *units.shape[1:]))


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Values in six digits, as many as a float32 has."""
    return tuple(float(f"{value:.6g}") for value in values)
