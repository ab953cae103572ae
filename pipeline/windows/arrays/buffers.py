"""The last steps of many series, in arrays with a row for each; steps are added, and windows taken, many at once.

R rows   S steps of a window   F features   M events that become steps   B windows   G series of a batch
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.windows.arrays.packed import Encoded, PackedRows
from pipeline.windows.arrays.pool import Numbers, Pool, grown
from pipeline.windows.grid import Bools, Floats, Ints, Value, interpolate, view

SPREAD = 4
"""Series of a batch are laid out together if none has more than so many times as many steps as another."""


SMALL = 64
"""A batch of fewer events is laid out together anyway."""
OBSERVED = 0
"""The row of flags of series all steps of which were observed."""


def slack(seq_len: int) -> int:
    """Steps of a row beyond S: a full row is moved back once in so many steps."""
    return max(1, seq_len // 24)


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
        self._first = np.zeros(0, np.int32)
        self._values = PackedRows(self._length, features)
        self._times = np.zeros((0, self._length, int(timed)), np.int64)
        self._flagged = np.zeros(0, np.int32)
        """(R,): which row of the flags each has, if not all of its steps were observed; else OBSERVED."""
        self._flags = Pool((self._length, features), np.bool_)
        self._flags.take(1)
        self._flags.rows[OBSERVED] = True

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        arrays = self._first, self._values, self._times, self._flagged, self._flags.rows
        return sum(array.nbytes for array in arrays)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row all steps of which were observed."""
        return self._values.row_bytes + self._length * 8 * self._times.shape[2] + 8

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows."""
        self._first, self._flagged = grown(self._first, rows), grown(self._flagged, rows)
        self._times = grown(self._times, rows)
        self._values.reserve(rows)

    def release(self, rows: Ints) -> None:
        """Make rows ready for other series."""
        self._all_observed(rows)
        self._values.clear(rows)

    def extend(self, added: Added, ends: Ints) -> tuple[Floats, Bools]:
        """Add steps; the windows (B,S,F) that end with the events `ends`, and which of their steps were observed.

        Where a series has fewer than S steps, the steps before are not its own.
        """
        if len(added.row) < SMALL:
            return self._extend(added, ends)
        starts = _starts(added.row)
        steps = np.add.reduceat(added.filled + 1, starts)
        if steps.max() <= SPREAD * steps.min():
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
        rows = layout.rows
        laid = np.empty((len(rows), layout.width, self._width))
        self._values.read(rows, self._first[rows], laid[:, : self._seq_len])
        values = laid.reshape(-1, self._width)
        values[layout.at] = added.values
        if len(layout.gaps):
            before, after = values[layout.gaps - layout.number], added.values[layout.event]
            values[layout.gaps] = interpolate(before, after, layout.number[:, None], layout.missing[:, None] + 1)
        full = self._write_values(values, layout)
        if self._times.shape[2]:
            times = self._laid(self._times, rows, layout)
            times[layout.at] = added.ts[:, None]
            self._write(self._times, rows, times, layout, full)
        x, flags = self._windows(values, layout, ends), self._flag(layout, full)
        self._first[rows] = np.where(full, 0, self._first[rows] + layout.steps)
        return x, np.ones(x.shape, np.bool_) if flags is None else self._windows(flags, layout, ends)

    def _write_values(self, values: Floats, layout: "_Layout") -> Bools:
        """Write new values behind those of their rows; which rows (G,) have no room for them, or no code by which they
        are exact, and so begin anew with their last S steps.
        """
        rows, new, series = layout.rows, layout.new, layout.new_series
        full = self._first[rows] + layout.steps > self._length - self._seq_len
        encoded = self._values.encode(rows[series], values[new])
        full[series[~encoded.exact.all(axis=1)]] = True
        begins = np.arange(len(rows)) * layout.width
        last = view(values, self._seq_len)[(begins + layout.steps)[full]]
        self._values.rewrite(rows[full], last.reshape(-1, self._seq_len, self._width))
        kept = ~full[series]
        at = (self._first[rows] - begins)[series] + new
        self._values.write(
            rows[series][kept], at[kept], Encoded(encoded.low[kept], encoded.high[kept], encoded.exact[kept])
        )
        return full

    def _flag(self, layout: "_Layout", full: Bools) -> Bools | None:
        """Write the flags of new steps; those of all steps as `_laid` has them, or None if all were observed."""
        rows, filled = layout.rows, np.zeros(len(layout.rows), np.bool_)
        filled[layout.series[layout.event]] = True
        if (new := rows[filled & (self._flagged[rows] == OBSERVED)]).size:
            self._flagged[new] = self._flags.take(len(new))
            self._flags.rows[self._flagged[new]] = True
        if not self._flagged[rows].any():
            return None
        flags = self._laid(self._flags.rows, self._flagged[rows], layout)
        flags[layout.at], flags[layout.gaps] = True, False
        self._write(self._flags.rows, self._flagged[rows], flags, layout, full)
        moved = rows[full & (self._flagged[rows] != OBSERVED)]
        self._all_observed(moved[self._flags.rows[self._flagged[moved], : self._seq_len].all(axis=(1, 2))])
        return flags

    def _all_observed(self, rows: Ints) -> None:
        """Note that all steps of these rows were observed."""
        self._flags.give(self._flagged[rows][self._flagged[rows] != OBSERVED])
        self._flagged[rows] = OBSERVED

    def _laid(self, array: npt.NDArray[Value], rows: Numbers, layout: "_Layout") -> npt.NDArray[Value]:
        """The last S steps of each series, in these rows of an array, with room for new ones behind: (G * width, n)."""
        depth = array.shape[2]
        laid = np.empty((len(rows), layout.width, depth), array.dtype)
        kept = view(array.reshape(-1, depth), self._seq_len)[rows * self._length + self._first[layout.rows]]
        laid[:, : self._seq_len] = kept.reshape(len(rows), self._seq_len, depth)
        return laid.reshape(-1, depth)

    def _windows(self, laid: npt.NDArray[Value], layout: "_Layout", ends: Ints) -> npt.NDArray[Value]:
        windows = view(laid, self._seq_len)[layout.at[ends] - self._seq_len + 1]
        return windows.reshape(len(ends), self._seq_len, laid.shape[1])

    def _write(
        self, array: npt.NDArray[Any], rows: Numbers, laid: npt.NDArray[Any], layout: "_Layout", full: Bools
    ) -> None:
        """Write new steps behind those of their rows of an array; the last S steps to the beginning of full ones."""
        new, series, begins = layout.new, layout.new_series, np.arange(len(rows)) * layout.width
        behind = rows * self._length + self._first[layout.rows] - begins
        if full.any():
            last = view(laid, self._seq_len)[(begins + layout.steps)[full]]
            array[rows[full], : self._seq_len] = last.reshape(-1, self._seq_len, array.shape[2])
            chosen = ~full[series]
            new, series = new[chosen], series[chosen]
        array.reshape(-1, array.shape[2])[behind[series] + new] = laid[new]

    def first_time(self, row: int) -> int:
        """The time of the first of a row's last S steps."""
        return int(self._times[row, self._first[row], 0])

    def copy(self, rows: Ints) -> tuple[Floats, Bools, Ints]:
        """The last S steps of G rows: (G,S,F), (G,S,F), and if timed (G,S,1), else (G,S,0)."""
        first = self._first[rows]
        values = np.empty((len(rows), self._seq_len, self._width))
        self._values.read(rows, first, values)
        steps = first[:, None] + np.arange(self._seq_len)
        return values, self._flags.rows[self._flagged[rows][:, None], steps], self._times[rows[:, None], steps]

    def fill(self, rows: Ints, values: Sequence[Floats], observed: Sequence[Bools], times: Sequence[Ints]) -> None:
        """Replace the steps of rows by others: for each n <= S of them, (n,F), (n,F), and if timed (n,)."""
        self._first[rows] = 0
        self.release(rows)
        steps = np.zeros((len(rows), self._seq_len, self._width))
        for number, (row, last, seen, when) in enumerate(zip(rows.tolist(), values, observed, times, strict=True)):
            kept = slice(self._seq_len - len(last), self._seq_len)
            steps[number, kept] = last
            self._times[row, kept] = when[:, None] if self._times.shape[2] else 0
            if not seen.all():
                (self._flagged[row],) = self._flags.take(1)
                self._flags.rows[self._flagged[row]] = True
                self._flags.rows[self._flagged[row], kept] = seen
        self._values.rewrite(rows, steps)


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

    @property
    def new(self) -> Ints:
        """(M+N,): the places of all new steps."""
        return np.concatenate([self.at, self.gaps]) if len(self.gaps) else self.at

    @property
    def new_series(self) -> Ints:
        """(M+N,): which series each new step is of."""
        return np.concatenate([self.series, self.series[self.event]]) if len(self.gaps) else self.series

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
