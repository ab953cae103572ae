"""The state of many tracks as arrays with a row per track. A track is one target of one series.

N rows   R tracks of a round, in which no series occurs twice
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Tracks = dict[str, npt.NDArray[Any]]
"""The state of R tracks by field, (R,...) each: copies, to be changed in place and stored again."""
FIRST_ROWS = 16


class Field(NamedTuple):
    """One array of a component's state."""

    dtype: str
    """Such as <f4: its bytes are written to checkpoints as they are."""
    shape: tuple[int, ...] = ()
    """Of one track's part."""


Fields = Mapping[str, Field]
"""A component's state by name. That of a new track is all zeros."""


class TrackStore:
    """Rows of tracks, `width` in succession for each series (one per target)."""

    def __init__(self, fields: Fields, width: int) -> None:
        self.fields, self.width = fields, width
        self._used = 0
        self._free: list[int] = []
        self._arrays: Tracks = {}
        self._reserve(FIRST_ROWS * width)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, which have room for up to twice the rows in use."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def series_bytes(self) -> int:
        """Bytes of one series' state."""
        return self.width * sum(array[:1].nbytes for array in self._arrays.values())

    def allocate(self) -> int:
        """The first row of a new series, all zeros."""
        if self._free:
            row = self._free.pop()
            for array in self._arrays.values():
                array[row : row + self.width] = 0
            return row
        row, self._used = self._used, self._used + self.width
        if self._used > len(next(iter(self._arrays.values()))):
            self._reserve(2 * row)
        return row

    def release(self, row: int) -> None:
        """Free the rows of a series for another one."""
        self._free.append(row)

    def array(self, name: str) -> npt.NDArray[Any]:
        """A field of all rows, (N,...), until the next `allocate`."""
        return self._arrays[name]

    def gather(self, rows: Ints, names: Iterable[str] | None = None) -> Tracks:
        """Fields of some tracks, (R,...) each; None: all."""
        return {name: self._arrays[name].take(rows, axis=0) for name in (self.fields if names is None else names)}

    def scatter(self, rows: Ints, tracks: Tracks) -> None:
        """Store these fields of some tracks."""
        for name, values in tracks.items():
            self._arrays[name][rows] = values

    def to_bytes(self, row: int, names: Sequence[str]) -> bytes:
        """These fields of a series, field after field."""
        return b"".join([self._arrays[name][row : row + self.width].tobytes() for name in names])

    def from_bytes(self, row: int, names: Sequence[str], data: bytes) -> bool:
        """Set these fields of a series; False, and nothing is set, if the bytes are not as many as they take."""
        arrays = [self._arrays[name][row : row + self.width] for name in names]
        if sum(array.nbytes for array in arrays) != len(data):
            return False
        start = 0
        for array in arrays:
            array[:] = np.frombuffer(data, array.dtype, array.size, start).reshape(array.shape)
            start += array.nbytes
        return True

    def _reserve(self, rows: int) -> None:
        """Make room for so many rows. The system allocates the memory when it is first written."""
        for name, field in self.fields.items():
            grown = np.zeros((rows, *field.shape), field.dtype)
            if self._used and name in self._arrays:
                grown[: len(self._arrays[name])] = self._arrays[name]
            self._arrays[name] = grown
