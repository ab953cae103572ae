"""Rows of an array that are given out and taken back."""

import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.windows.grid import Ints

Numbers = npt.NDArray[np.signedinteger[Any]]
"""Of rows, in 4 or 8 bytes."""
LARGE = 64 << 10
"""Bytes of an array that has memory of its own."""


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

    def give(self, rows: Numbers) -> None:
        """Take rows back."""
        self._free += rows.tolist()


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of zeros; the system allocates its memory when it is first written, and has it back with its end.

    Of malloc it would not: freed arrays stay with the process, between others, for a tenth more in all.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype).reshape(shape)


def grown(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """The array with so many rows, new ones 0."""
    bigger = zeros((rows, *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger
