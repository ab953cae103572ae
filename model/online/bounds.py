"""From an interval's margins to the bounds that are written: rounded outwards, to a thousandth of the width or less."""

from math import floor, log10

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
DIGITS, MOST = 3, 15
"""Significant digits of the width that are kept, and most decimals."""
SMALLEST, LARGEST = -1073, 1024
"""The binary exponents of numbers."""
POWERS = 10.0 ** np.array(
    [min(max(DIGITS - floor((exponent - 1) * log10(2)), 0), MOST) for exponent in range(SMALLEST, LARGEST + 1)]
)
"""By a width's exponent: what makes the last digit that is kept a whole number."""


def bounds(
    forecast: npt.NDArray[np.floating],
    lower: npt.NDArray[np.float32],
    upper: npt.NDArray[np.float32],
    clipped: npt.NDArray[np.bool_] | bool = False,
) -> tuple[Reals, Reals]:
    """Lower and upper bounds, in the forecast's shape, from margins of the same shape; NaN where they are NaN.

    They depend on each element alone. Where `clipped` (broadcast), they are not below zero.
    """
    exact, below, above = (each.astype(np.float64, copy=False) for each in (forecast, lower, upper))
    width = np.maximum(below + above, np.finfo(np.float32).tiny)
    power = POWERS.take(np.frexp(width)[1] - SMALLEST, mode="clip")
    low, high = np.floor((exact - below) * power) / power, np.ceil((exact + above) * power) / power
    if np.any(clipped):
        low, high = (np.where(clipped, np.maximum(bound, 0.0), bound) for bound in (low, high))
    return low, high
