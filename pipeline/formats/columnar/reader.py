"""From a columnar record to its points.

Columns are found by their names, as the fields of a JSON event are: `series` (text, or a dictionary of texts), `ts` (a
timestamp, or a whole number), and `value` or the features; or by the paths of [decode]. Without a column of either, the
record's key is the series of all rows, its timestamp their time. Other columns are not looked at.

n rows   F features
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from pipeline.formats.columnar.ipc import Ints, Table, read_table
from pipeline.formats.columnar.metadata import FLOAT, INT, TIMESTAMP
from pipeline.formats.columnar.points import Points, Reals, row_record
from pipeline.formats.columnar.times import Refused, Times, cells_of, iso, read_times
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import FROM_RECORD, Sources
from pipeline.formats.names import Found
from pipeline.formats.paths import KEY, Path
from pipeline.formats.paths import TIMESTAMP as RECORD_TIME
from pipeline.formats.series import FROM_KEY
from pipeline.log import Record, Undecodable
from pipeline.log.limits import MAX_COLUMNAR_BYTES, Truncated


class _Columns(NamedTuple):
    """The columns that events are read from."""

    series: tuple[str, ...]
    """Several make up a name together; KEY is the record's key."""
    ts: str
    """Or RECORD_TIME, for that of the record."""
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PointsReader:
    """Reads columnar records by the rules of a decoder of events."""

    features: tuple[str, ...]
    min_time: int
    mapped: bool
    """Whether there are paths to the fields."""
    read_row: Callable[[dict[str, Any], dict[str, Any], Record], tuple[Any, Sources]]
    """Reads a row that is given as an object, twice: the event, and from which fields it is read."""
    names: AbstractSet[str]
    """Those that are known to be valid."""
    check_name: Callable[[str], str]
    """Checks another one."""
    check_ahead: Callable[[int, int], None]
    """Checks a time against its record's."""
    key: Callable[[bytes | None], str]
    event: Callable[[str, int, tuple[float, ...]], Any]

    def describe(self, record: Record) -> None:
        """Read a row as if it were a JSON event, by which it is said what is read from where. Raises InvalidEvent."""
        table = self._table(record)
        if table.rows:
            example = _example(table)
            self.read_row(example, example, record)

    def _table(self, record: Record) -> Table:
        if isinstance(record.headers, Undecodable):
            raise InvalidEvent("undecodable_record", record.headers.why)
        value = record.value or b""
        if isinstance(value, Truncated) or len(value) > MAX_COLUMNAR_BYTES:
            raise InvalidEvent("too_large", f"it is longer than {MAX_COLUMNAR_BYTES:,} bytes: fewer rows a message")
        return read_table(value)

    def read(self, record: Record) -> Points:
        """A record's points. Raises InvalidEvent."""
        table = self._table(record)
        columns = self._columns(table, record)
        refused: Refused = {}
        names = self._names(table, columns.series, record, refused)
        times = self._times(table, columns.ts, record, refused)
        values = self._values(table, columns.values, refused)
        self._check_names(names, refused)
        if table.rows:
            self._check_ahead(times.ts, record.timestamp, refused)
        good = np.ones(table.rows, bool)
        good[list(refused)] = False
        kept = [name for name in compress(names, good.tolist()) if name is not None]
        invalid = [
            (row_record(record, names[row], _plain(times.given[row]), values[row].tolist(), self.features), error)
            for row, error in sorted(refused.items())
        ]
        return Points(record, self.features, kept, times.ts[good], values[good], self.event, invalid)

    def _columns(self, table: Table, record: Record) -> _Columns:
        own = not self.mapped and {"series", "ts", *self.features} <= table.fields.keys()
        if own or not table.rows:
            return _Columns(("series",), "ts", self.features)
        example = _example(table)
        _, found = self.read_row(example, example, record)
        if found.paths.each is not None:
            raise InvalidEvent("schema", "[decode] reads an array's elements, and a columnar message has none")
        values = [found.paths.values.get(name, each) for name, each in zip(self.features, found.values, strict=True)]
        series = tuple(map(_column, found.paths.series or (found.series,)))
        return _Columns(series, _column(found.paths.ts or found.time), tuple(map(_column, values)))

    def _names(self, table: Table, columns: Sequence[str], record: Record, refused: Refused) -> Sequence[str | None]:
        parts: list[list[str | None]] = []
        for name in columns if table.rows else ():
            if name == KEY:
                parts.append([self.key(record.key)] * table.rows)
                continue
            kind = table.fields[name]
            if kind.kind == INT and kind.index is None:
                cells = cells_of(*table.numbers(name))
                parts.append([None if cell is None else str(cell) for cell in cells])
            else:
                parts.append(table.texts(name).rows())
            _refuse_null(name, parts[-1], refused)
        if len(parts) <= 1:
            return parts[0] if parts else []
        rows = zip(*parts, strict=True)
        return [None if None in texts else ",".join(text for text in texts if text is not None) for texts in rows]

    def _times(self, table: Table, name: str, record: Record, refused: Refused) -> Times:
        if not table.rows:
            return Times(np.zeros(0, np.int64), [])
        if name == RECORD_TIME:
            ts = np.full(table.rows, record.timestamp, np.int64)
            return Times(ts, ts)
        return read_times(table, name, self.min_time, refused)

    def _values(self, table: Table, columns: Sequence[str], refused: Refused) -> Reals:
        values = np.empty((table.rows, len(columns)))
        for place, name in enumerate(columns if table.rows else ()):
            numbers, null = table.numbers(name)
            values[:, place] = numbers
            if null is not None:
                values[null, place] = np.nan
                _refuse_null(name, cells_of(numbers, null), refused)
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32))
        for row, place in [] if finite.all() else np.argwhere(~finite).tolist():
            number = values[row, place]
            if np.isnan(number):
                refused.setdefault(row, InvalidEvent("schema", f"`{columns[place]}` is not a number"))
            else:
                refused.setdefault(row, InvalidEvent("out_of_range", f"{number!s} does not fit in a float32"))
        return values

    def _check_names(self, names: Sequence[str | None], refused: Refused) -> None:
        bad = {}
        for name in set(names) - self.names:
            try:
                self.check_name(name or "")
            except InvalidEvent as error:
                bad[name] = error.with_traceback(None)
        for row, name in enumerate(names) if bad else ():
            if name in bad:
                refused.setdefault(row, bad[name])

    def _check_ahead(self, ts: Ints, recorded: int, refused: Refused) -> None:
        """If the latest time is not too far ahead, none is."""
        try:
            self.check_ahead(int(ts.max()), recorded)
        except InvalidEvent:
            for row, each in enumerate(ts.tolist()):
                try:
                    self.check_ahead(each, recorded)
                except InvalidEvent as error:
                    refused.setdefault(row, error.with_traceback(None))


def _refuse_null(name: str, cells: Sequence[object], refused: Refused) -> None:
    if None in cells:
        for row in (row for row, cell in enumerate(cells) if cell is None):
            refused.setdefault(row, InvalidEvent("schema", f"`{name}` is null"))


def _plain(cell: Any) -> object:
    """A cell as JSON may have it."""
    return cell.item() if isinstance(cell, np.generic) else cell


def _column(given: Path | Found) -> str:
    """The column that a path leads to, or that was found."""
    if isinstance(given, Path):
        if len(given.steps) > 1:
            raise InvalidEvent("schema", f"{given.text} leads to no column")
        return str(given.steps[0]) if given.steps else given.text
    if "` and `" in given.name:
        raise InvalidEvent("schema", f"the time is in {given.name}: one column is expected")
    return {FROM_KEY: KEY, FROM_RECORD: RECORD_TIME}.get(given.name, given.name.strip("`"))


def _example(table: Table) -> dict[str, Any]:
    """The first row without nulls, or else the first, as a JSON event would be. Columns of other types are left out."""
    columns: dict[str, Sequence[Any]] = {}
    for name, kind in table.fields.items():
        try:
            if kind.index is not None or kind.kind not in (INT, FLOAT, TIMESTAMP):
                columns[name] = table.texts(name).rows()
                continue
            cells = cells_of(*table.numbers(name))
            times = kind.kind == TIMESTAMP
            columns[name] = (
                [cell if cell is None else iso(cell, kind.unit, kind.zone) for cell in cells] if times else cells
            )
        except InvalidEvent as error:
            if error.reason != "schema":
                raise
    complete = (row for row in range(table.rows) if all(cells[row] is not None for cells in columns.values()))
    row = next(complete, 0)
    return {name: cells[row] for name, cells in columns.items()}
