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
    """Values at the scored steps (R,H,...), interpolated to all steps (R,K,...); at the former they are the same."""
    if len(steps) == horizon:
        return scored
    ahead, at = np.arange(1, horizon + 1), np.array(steps)
    left = np.searchsorted(at, ahead, side="right") - 1
    right = np.minimum(left + 1, len(at) - 1)
    share = ((ahead - at[left]) / np.maximum(at[right] - at[left], 1)).astype(np.float32)
    low = scored[:, left]
    result: npt.NDArray[np.float32] = low + (scored[:, right] - low) * share.reshape(-1, *(1,) * (scored.ndim - 2))
    return result
