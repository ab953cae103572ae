"""Rows of an array that are given out and taken back."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.windows.grid import Ints


class Pool:
    """Rows for the few that need one."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.rows: npt.NDArray[Any] = np.zeros((0, *shape), dtype)
        self._free: list[int] = []

    def take(self, count: int) -> Ints:
        """The numbers of so many rows, the lowest ones first, with anything in them."""
        if len(self._free) < count:
            had = len(self.rows)
            self.rows = grown(self.rows, 2 * (had + count))
            self._free += range(len(self.rows) - 1, had - 1, -1)
        taken, self._free = self._free[len(self._free) - count :], self._free[: len(self._free) - count]
        return np.array(taken[::-1], np.int64)

    def give(self, rows: Ints) -> None:
        """Take rows back."""
        self._free += rows.tolist()


def grown(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """The array with so many rows, new ones 0. The system allocates their memory when it is first written."""
    bigger = np.zeros((rows, *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger
