"""Which steps of a horizon are scored, and what lies between them.

R tracks   K horizon steps   H scored steps
"""

import numpy as np
import numpy.typing as npt

MOST = 8
"""Most scored steps of a horizon."""


def scored_steps(horizon: int) -> tuple[int, ...]:
    """All steps of a horizon up to 8, else 1, 2, 4, ... and the last: 8 at most."""
    if horizon <= MOST:
        return tuple(range(1, horizon + 1))
    powers = (2**power for power in range(MOST - 1))
    return (*(step for step in powers if step < horizon), horizon)


def between_steps(scored: npt.NDArray[np.float32], steps: tuple[int, ...], horizon: int) -> npt.NDArray[np.float32]:
    """From values at the scored steps (R,H,...) to all steps (R,K,...), by linear interpolation."""
    if len(steps) == horizon:
        return scored
    ahead = np.arange(1, horizon + 1)
    right = np.searchsorted(steps, ahead)
    left = np.maximum(right - 1, 0)
    at = np.array(steps)
    width = np.maximum(at[right] - at[left], 1)
    share = ((ahead - at[left]) / width).astype(np.float32)
    share = share.reshape(-1, *(1,) * (scored.ndim - 2))
    low, high = scored[:, left], scored[:, right]
    result: npt.NDArray[np.float32] = low + (high - low) * share
    return result
