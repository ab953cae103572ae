"""The last steps of many series, in arrays with a row for each; steps are added, and windows taken, many at once.

R rows   S steps of a window   F features   M events that become steps   B windows   G series of a batch
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.windows.grid import Bools, Floats, Ints, interpolate, view

SPREAD = 4
"""Series of a batch are laid out together if none has more than so many times as many steps as another."""


def slack(seq_len: int) -> int:
    """Steps of a row beyond S: a full row is moved back once in so many steps."""
    return max(1, seq_len // 8)


class Added(NamedTuple):
    """Events that have become steps: sorted by their series' rows, those of a series in order."""

    row: Ints
    """(M,)."""
    values: Floats
    """(M,F)."""
    filled: Ints
    """(M,): how many steps are filled between the series' step before and this one."""
    ts: Ints
    """(M,): their times."""


class StepBuffers:
    """Rows in which the last S steps of a series lie from a `first` one on: for each its values (F,), whether they were
    observed (F,), and if `timed` its time.
    """

    def __init__(self, seq_len: int, features: int, timed: bool) -> None:
        self._seq_len, self._width = seq_len, features
        self._length = seq_len + slack(seq_len)
        self._first = np.zeros(0, np.int64)
        shape = (0, self._length, features)
        self._values, self._observed = np.zeros(shape), np.zeros(shape, np.bool_)
        self._times = np.zeros((0, self._length, int(timed)), np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self._first.nbytes + self._values.nbytes + self._observed.nbytes + self._times.nbytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self._length * (9 * self._width + 8 * self._times.shape[2]) + 8

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows. The system allocates the memory when it is first written."""
        self._first = _grown(self._first, rows)
        self._values, self._observed = _grown(self._values, rows), _grown(self._observed, rows)
        self._times = _grown(self._times, rows)

    def extend(self, added: Added, ends: Ints) -> tuple[Floats, Bools]:
        """Add steps; the windows (B,S,F) that end with the events `ends`, and which of their steps were observed.

        Where a series has fewer than S steps, the steps before are not its own.
        """
        starts = _starts(added.row)
        steps = np.add.reduceat(added.filled + 1, starts) if len(starts) else starts
        if steps.max(initial=1) <= SPREAD * steps.min(initial=1 << 32):
            return self._extend(added, ends)
        x = np.empty((len(ends), self._seq_len, self._width))
        observed = np.empty(x.shape, np.bool_)
        size = np.repeat(np.log2(steps).astype(np.int64) // 2, np.diff(starts, append=len(added.row)))
        for each in np.unique(size).tolist():
            chosen = size == each
            windows = np.flatnonzero(chosen[ends])
            part = Added(*(column[chosen] for column in added))
            x[windows], observed[windows] = self._extend(part, (np.cumsum(chosen) - 1)[ends[windows]])
        return x, observed

    def _extend(self, added: Added, ends: Ints) -> tuple[Floats, Bools]:
        layout = _Layout.of(added, self._seq_len)
        values, flags = self._laid(self._values, layout), self._laid(self._observed, layout)
        values[layout.at], flags[layout.at] = added.values, True
        if len(layout.gaps):
            count = layout.missing + 1
            before, after = values[layout.gaps - layout.number], added.values[layout.event]
            values[layout.gaps] = interpolate(before, after, layout.number[:, None], count[:, None])
            flags[layout.gaps] = False
        laid = [(self._values, values), (self._observed, flags)]
        if self._times.shape[2]:
            times = self._laid(self._times, layout)
            times[layout.at] = added.ts[:, None]
            laid.append((self._times, times))
        self._keep(layout, laid)
        first = layout.at[ends] - self._seq_len + 1
        shape = (len(ends), self._seq_len, self._width)
        return view(values, self._seq_len)[first].reshape(shape), view(flags, self._seq_len)[first].reshape(shape)

    def _laid(self, array: npt.NDArray[Any], layout: "_Layout") -> npt.NDArray[Any]:
        """The last S steps of each series, with room for those to be added behind: (G * width, n)."""
        rows, depth = layout.rows, array.shape[2]
        laid = np.empty((len(rows), layout.width, depth), array.dtype)
        kept = view(array.reshape(-1, depth), self._seq_len)[rows * self._length + self._first[rows]]
        laid[:, : self._seq_len] = kept.reshape(len(rows), self._seq_len, depth)
        return laid.reshape(-1, depth)

    def _keep(self, layout: "_Layout", laid: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> None:
        """Write the new steps behind those of their rows; the last S steps to the beginning of rows that are full."""
        rows, steps, series = layout.rows, layout.steps, np.concatenate([layout.series, layout.series[layout.event]])
        full = self._first[rows] + steps > self._length - self._seq_len
        kept = (np.arange(len(rows)) * layout.width + steps)[full]
        new = np.concatenate([layout.at, layout.gaps])
        if len(kept):
            chosen = ~full[series]
            new, series = new[chosen], series[chosen]
        behind = rows * self._length + self._first[rows] - np.arange(len(rows)) * layout.width
        for array, steps_laid in laid:
            array.reshape(-1, array.shape[2])[behind[series] + new] = steps_laid[new]
            if len(kept):
                last = view(steps_laid, self._seq_len)[kept]
                array[rows[full], : self._seq_len] = last.reshape(len(kept), self._seq_len, array.shape[2])
        self._first[rows] = np.where(full, 0, self._first[rows] + steps)

    def first_time(self, row: int) -> int:
        """The time of the first of a row's last S steps."""
        return int(self._times[row, self._first[row], 0])

    def copy(self, row: int, count: int) -> tuple[Floats, Bools, Ints]:
        """A row's last n <= S steps: (n,F), (n,F), and if timed (n,), else (0,)."""
        stop = int(self._first[row]) + self._seq_len
        kept = slice(stop - count, stop)
        return self._values[row, kept].copy(), self._observed[row, kept].copy(), self._times[row, kept].ravel()

    def fill(self, row: int, values: Floats, observed: Bools, times: Ints) -> None:
        """Replace a row's steps by these n <= S."""
        kept = slice(self._seq_len - len(values), self._seq_len)
        self._first[row] = 0
        self._values[row, kept], self._observed[row, kept] = values, observed
        self._times[row, kept] = times.reshape(-1, 1) if self._times.shape[2] else 0


@dataclass(slots=True, frozen=True)
class _Layout:
    """Where the steps of some series are laid out, each's in `width` places: the last S ones, then the new ones."""

    rows: Ints
    """(G,): the rows of the series."""
    steps: Ints
    """(G,): how many each gets."""
    width: int
    series: Ints
    """(M,): which of them each event is of."""
    at: Ints
    """(M,): the place of each event."""
    event: Ints
    """(N,): for each step that is filled the event behind the gap."""
    missing: Ints
    """(N,): how many steps of the gap there are."""
    number: Ints
    """(N,): which of them it is, from 1 on."""
    gaps: Ints
    """(N,): its place."""

    @classmethod
    def of(cls, added: Added, seq_len: int) -> "_Layout":
        """Of these events."""
        starts = _starts(added.row)
        series = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(added.row)))
        through = np.cumsum(added.filled + 1)
        before = (through - added.filled - 1)[starts]
        steps = np.diff(before, append=through[-1:])
        width = seq_len + int(steps.max(initial=0))
        at = series * width + seq_len - 1 + through - before[series]
        event = np.repeat(np.arange(len(at)), added.filled)
        missing = added.filled[event]
        number = np.arange(len(event)) - (np.cumsum(added.filled) - added.filled)[event] + 1
        gaps = at[event] - missing - 1 + number
        return cls(added.row[starts], steps, width, series, at, event, missing, number, gaps)


def _starts(rows: Ints) -> Ints:
    """Where each series begins among sorted rows."""
    first = np.ones(len(rows), np.bool_)
    first[1:] = rows[1:] != rows[:-1]
    return np.flatnonzero(first)


def _grown(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    grown = np.zeros((rows, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
