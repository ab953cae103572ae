"""The last steps of many series, in arrays with a row per series, so that many windows are gathered at once.

S steps of a window   F features
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.windows.grid import Bools, Floats, Ints, view

SLACK = 64
"""Steps of a row beyond S: a full row is shifted back once in so many steps."""


@dataclass(slots=True)
class BufferRow:
    """The row of one series. Its positions are indices into the arrays, which hold all rows."""

    end: int
    """One past its newest step."""
    stop: int
    """One past its last position."""
    run: int = 0
    """Steps since its window was last empty."""


class StepBuffers:
    """Rows of S + SLACK steps: values (F,) float64, observed flags (F,), and if `timed` each step's time."""

    def __init__(self, seq_len: int, features: int, timed: bool) -> None:
        self._seq_len, self._width, self._timed = seq_len, features, timed
        self._length = seq_len + SLACK
        self._used = 0
        self._free: list[int] = []
        self._marked: list[int] = []
        self._gathered: list[tuple[Floats, Bools]] = []
        self._values: Floats = np.zeros((0, features))
        self._observed: Bools = np.zeros((0, features), np.bool_)
        self._times: Ints = np.zeros(0, np.int64)
        none = (0, seq_len, features)
        self._no_windows: tuple[Floats, Bools] = np.empty(none), np.empty(none, np.bool_)
        self._reserve(16)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, which have room for up to twice the rows in use."""
        return self._values.nbytes + self._observed.nbytes + self._times.nbytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self._length * (9 * self._width + 8 * self._timed)

    def allocate(self) -> tuple[int, int]:
        """The first position of a free row, and one past its last."""
        if self._free:
            start = self._free.pop()
        else:
            start = self._seq_len + self._used * self._length  # so that S steps precede the end of the first row too
            if start == len(self._values):
                self._reserve(2 * self._used)
            self._used += 1
        return start, start + self._length

    def release(self, row: BufferRow) -> None:
        """Free a row for another series."""
        self.gather()
        self._free.append(row.stop - self._length)

    def write(self, row: BufferRow, values: Sequence[float], observed: bool, ts: int = 0) -> None:
        """Add a step to a row."""
        if row.end == row.stop:
            self._shift(row)
        for at, value in enumerate(values, row.end * self._width):
            self._values_memory[at] = value
            self._observed_memory[at] = observed
        if self._timed:
            self._times_memory[row.end] = ts
        row.end += 1
        row.run += 1

    def mark(self, row: BufferRow) -> None:
        """Mark a row's last S steps for `take`. Where it has fewer, the steps before are not its own."""
        self._marked.append(row.end - self._seq_len)

    def take(self) -> tuple[Floats, Bools]:
        """The windows marked since the last take: values (B,S,F) and observed flags (B,S,F)."""
        self.gather()
        gathered, self._gathered = self._gathered or [self._no_windows], []
        if len(gathered) == 1:
            return gathered[0]
        values, observed = zip(*gathered, strict=True)
        return np.concatenate(values), np.concatenate(observed)

    def gather(self) -> None:
        """Copy the marked windows, before their positions are overwritten."""
        if self._marked:
            starts, self._marked = np.array(self._marked), []
            shape = (len(starts), self._seq_len, self._width)
            windows = self._values_view[starts].reshape(shape), self._observed_view[starts].reshape(shape)
            self._gathered.append(windows)

    def last(self, row: BufferRow) -> Floats:
        """The values (F,) of a row's newest step."""
        newest: Floats = self._values[row.end - 1]
        return newest

    def first_time(self, row: BufferRow) -> int:
        """The time of the first of a row's last S steps."""
        return int(self._times[row.end - self._seq_len])

    def copy(self, row: BufferRow) -> tuple[Floats, Bools, Ints]:
        """A row's last n <= S steps: (n,F), (n,F), and if timed (n,)."""
        kept = slice(row.end - min(row.run, self._seq_len), row.end)
        return self._values[kept].copy(), self._observed[kept].copy(), self._times[kept].copy()

    def fill(self, row: BufferRow, values: Floats, observed: Bools, times: Ints) -> None:
        """Replace a row's steps by these n."""
        self.gather()
        start = row.stop - self._length
        row.run, row.end = len(values), start + len(values)
        self._values[start : row.end], self._observed[start : row.end] = values, observed
        if self._timed:
            self._times[start : row.end] = times

    def _shift(self, row: BufferRow) -> None:
        """Move a full row's last S-1 steps to its beginning."""
        self.gather()
        kept, start = self._seq_len - 1, row.stop - self._length
        for array in (self._values, self._observed, *((self._times,) if self._timed else ())):
            array[start : start + kept] = array[row.stop - kept : row.stop]
        row.end = start + kept

    def _reserve(self, rows: int) -> None:
        """Make room for `rows` rows. The system allocates the memory when it is first written."""
        positions = self._seq_len + rows * self._length
        shape = (positions, self._width)
        values, observed = np.zeros(shape), np.zeros(shape, np.bool_)
        values[: len(self._values)], observed[: len(self._observed)] = self._values, self._observed
        self._values, self._observed = values, observed
        if self._timed:
            times = np.zeros(positions, np.int64)
            times[: len(self._times)] = self._times
            self._times, self._times_memory = times, times.data
        # A memoryview writes single numbers several times faster than an array.
        self._values_memory = values.data.cast("B").cast("d")
        self._observed_memory = observed.data.cast("B").cast("?")
        self._values_view, self._observed_view = view(values, self._seq_len), view(observed, self._seq_len)
