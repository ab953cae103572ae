"""What a window store keeps of each series beside its steps: a column for each thing, a row for each series."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.windows.arrays.pool import zeros
from pipeline.windows.batch import UNKNOWN
from pipeline.windows.grid import Bools, Ints
from pipeline.windows.reorder import BEFORE_ALL

FIRST_ROWS = 16


@dataclass(slots=True)
class Columns:
    """(rows,) each. All are 0 of a new series, but for those in NEW."""

    step: Ints
    """The number of its last step."""
    ts: Ints
    """The time of that step's event."""
    first_offset: Ints
    later: Ints
    """See SeriesState.first_offset."""
    later_run: Ints
    """What `run` was before the step of the offset `later`."""
    run: Ints
    """Steps since its window was last empty."""
    longest: Ints
    steps: npt.NDArray[np.uint8]
    silent: Bools
    """What silence.py keeps."""
    changed: Ints
    """Which of all changes since the last `clean` was its first, from 1 on; 0 if there was none."""


NEW = {"step": -1, "ts": BEFORE_ALL, "first_offset": UNKNOWN, "later": UNKNOWN}
TYPES = {"steps": np.uint8, "silent": np.bool_}
ROW_BYTES = 8 * 8 + 2
"""Bytes of a row."""
NAMES = tuple(field.name for field in fields(Columns))


class Table:
    """The series by name and by row. Rows of series that are gone are used again."""

    def __init__(self, reserve: Callable[[int], object]) -> None:
        """`reserve` makes room for so many rows elsewhere."""
        self._reserve_elsewhere = reserve
        self.rows: dict[str, int] = {}
        self.names: list[str] = []
        """By row; of free rows the last one's."""
        self.size = 0
        """How many rows there is room for."""
        self.columns: Columns
        self._free: list[int] = []
        self._changes = 0
        self._gone: dict[str, int] = {}
        """Series that are gone: which change that was, or their first one."""
        self._reserve(FIRST_ROWS)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(getattr(self.columns, name).nbytes for name in NAMES)

    def row(self, name: str) -> int:
        """The row of a series, new or not."""
        if (known := self.rows.get(name)) is not None:
            return known
        if self._free:
            row = self._free.pop()
            self.names[row] = name
        else:
            row = len(self.names)
            if row == self.size:
                self._reserve(2 * self.size)
            self.names.append(name)
            for column, value in NEW.items():
                getattr(self.cells, column)[row] = value
        self.rows[name] = row
        self.cells.changed[row] = self._gone.pop(name, 0)
        return row

    def remove(self, name: str) -> int:
        """Remove a series, which is a change of it; the row that it had."""
        row = self.rows.pop(name)
        self._changes += 1
        self._gone[name] = self.cells.changed[row] or self._changes
        for column in NAMES:
            getattr(self.cells, column)[row] = NEW.get(column, 0)
        self._free.append(row)
        return row

    def change(self, row: int) -> None:
        """Note that a series has changed."""
        if not self.cells.changed[row]:
            self._changes += 1
            self.cells.changed[row] = self._changes

    def change_many(self, rows: Ints, order: Ints) -> None:
        """Note that these different series have changed, in this order."""
        changed = self.columns.changed
        new = changed[rows] == 0
        changed[rows[new]] = self._changes + 1 + order[new]
        self._changes += 1 + int(order.max(initial=0))

    def dirty(self) -> list[str]:
        """The series that have changed, in the order of their first change."""
        rows = np.flatnonzero(self.columns.changed)
        when = self.columns.changed[rows].tolist()
        changed = [*zip(when, map(self.names.__getitem__, rows.tolist()), strict=True)]
        return [name for _, name in sorted([*changed, *((when, name) for name, when in self._gone.items())])]

    def dirty_count(self) -> int:
        """How many series have changed."""
        return int(np.count_nonzero(self.columns.changed)) + len(self._gone)

    def change_named(self, names: Iterable[str]) -> None:
        """Note that these series have changed; those that are not there are gone."""
        for name in names:
            if (row := self.rows.get(name)) is not None:
                self.change(row)
            elif name not in self._gone:
                self._changes += 1
                self._gone[name] = self._changes

    def clean(self) -> None:
        """Count every series as unchanged."""
        self.columns.changed[:] = 0
        self._gone.clear()
        self._changes = 0

    def _reserve(self, size: int) -> None:
        columns: dict[str, npt.NDArray[Any]] = {name: zeros((size,), TYPES.get(name, np.int64)) for name in NAMES}
        if self.size:
            for name, column in columns.items():
                column[: self.size] = getattr(self.columns, name)
        self._reserve_elsewhere(size)
        self.size, self.columns = size, Columns(**columns)
        self.cells: Any = SimpleNamespace(**{name: column.data for name, column in columns.items()})
        """The same memory for single values, several times faster than by the arrays."""


class _Cell:
    """A series' value in a column, as an attribute."""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, series: "Row", _: type) -> Any:
        return getattr(series.table.cells, self._name)[series.row]

    def __set__(self, series: "Row", value: int) -> None:
        getattr(series.table.cells, self._name)[series.row] = value


class Row:
    """A series as an object, which has the values of its row."""

    step, ts, run = _Cell(), _Cell(), _Cell()
    first_offset, later, later_run = _Cell(), _Cell(), _Cell()
    longest, steps, silent = _Cell(), _Cell(), _Cell()

    def __init__(self, table: Table, row: int) -> None:
        self.table, self.row = table, row


class ByName(Mapping[str, Row]):
    """The series of a table as objects, by name."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Row:
        return self.of(self._table.rows[name])

    def of(self, row: int) -> Row:
        """The series of a row."""
        return Row(self._table, row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.rows)

    def __len__(self) -> int:
        return len(self._table.rows)
