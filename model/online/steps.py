"""Which steps of a horizon are scored, and what lies between them.

K horizon steps   H scored steps
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


class Between:
    """Interpolates values at the scored steps to all steps of a horizon; at the former they are the same."""

    def __init__(self, steps: npt.NDArray[np.int64]) -> None:
        """`steps` (H,) ascending, the last one the horizon."""
        ahead = np.arange(1, steps[-1] + 1)
        self._left = np.searchsorted(steps, ahead, side="right") - 1
        self._right = np.minimum(self._left + 1, len(steps) - 1)
        length = np.maximum(steps[self._right] - steps[self._left], 1)
        self._share = ((ahead - steps[self._left]) / length).astype(np.float32)

    def __call__(self, scored: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """From (...,H) to (...,K)."""
        low, values = scored.take(self._left, axis=-1), scored.take(self._right, axis=-1)
        values -= low
        values *= self._share
        values += low
        return values
