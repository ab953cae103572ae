"""The times of a columnar message: a column of timestamps, of numbers whose unit is known by their magnitude, or texts.

n rows
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.formats.columnar.ipc import Ints, Table
from pipeline.formats.columnar.metadata import FLOAT, INT, TIMESTAMP
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.times import MAX_TIME, MIN_TIME, UNITS, read_time

Refused = dict[int, InvalidEvent]
"""Why the events of some rows can't be used."""

MILLISECONDS = {"s": (1_000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}
"""The milliseconds of a unit, as a fraction."""
DIGITS = ((19_000_000, 21_000_000), (190_000_000_000, 210_000_000_000), (19_000_000_000_000, 21_000_000_000_000))
"""Whole numbers that may be dates, such as 20261128103000."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Times(NamedTuple):
    """The times of n rows."""

    ts: Ints
    """(n,): epoch milliseconds; of a row that is refused, anything."""
    given: Sequence[Any] | npt.NDArray[Any]
    """(n,): as they are stored."""


def read_times(table: Table, name: str, min_time: int, refused: Refused) -> Times:
    """A column's times, by the rules of a JSON event's. Adds the rows that have none to `refused`."""
    kind = table.fields[name]
    if kind.kind not in (INT, FLOAT, TIMESTAMP) or kind.index is not None:
        return _each(name, table.texts(name).rows(), min_time, refused)
    numbers, null = table.numbers(name)
    if null is not None or kind.kind == FLOAT or (kind.kind == INT and _may_be_dates(numbers)):
        cells = [_cell(cell, kind.unit) for cell in cells_of(numbers, null)]
        return _each(name, cells, min_time, refused)
    ts = _scaled(numbers, kind.unit, min_time)
    for row in np.flatnonzero((ts < min_time) | (ts > MAX_TIME)).tolist():
        why = f"`{name}`: {numbers[row]} {kind.unit or 'in s, ms, us or ns'} since 1970 is not between 2000 and 9999"
        refused.setdefault(row, InvalidEvent("bad_time", why))
    return Times(ts, numbers)


def cells_of(numbers: npt.NDArray[Any], null: npt.NDArray[np.bool_] | None) -> list[Any]:
    """A column's numbers; None where it has nulls."""
    cells: list[Any] = numbers.tolist()
    return cells if null is None else [None if none else cell for cell, none in zip(cells, null.tolist(), strict=True)]


def _each(name: str, given: Sequence[object], min_time: int, refused: Refused) -> Times:
    """Times one by one."""
    ts = np.zeros(len(given), np.int64)
    for row, cell in enumerate(given):
        try:
            if cell is None:
                raise InvalidEvent("schema", "null is no time")
            ts[row] = read_time(cell, min_time).ts
        except InvalidEvent as error:
            refused.setdefault(row, InvalidEvent(error.reason, f"`{name}`: {error.detail}"))
    return Times(ts, given)


def _cell(number: Any, unit: str) -> Any:
    return iso(number, unit, "UTC") if unit and number is not None else number


def iso(number: int, unit: str, zone: str) -> str:
    """A timestamp in ISO 8601, with a zone if the column has one."""
    times, part = MILLISECONDS[unit]
    try:
        moment = EPOCH + timedelta(milliseconds=(number * times + part // 2) // part)
    except OverflowError:
        return f"{number} {unit}"
    return (moment if zone else moment.replace(tzinfo=None)).isoformat()


def _may_be_dates(numbers: npt.NDArray[Any]) -> bool:
    return any(bool(((numbers >= first) & (numbers < end)).any()) for first, end in DIGITS)


def _scaled(numbers: npt.NDArray[Any], unit: str, min_time: int) -> Ints:
    """Times in milliseconds, by their unit or, without one, each by its magnitude; -1 for what is no time."""
    most = np.iinfo(np.int64).max
    raw = np.where(numbers > most, -1, numbers).astype(np.int64)
    if unit:
        return _in_unit(raw, *MILLISECONDS[unit])
    ts = np.where((raw >= min_time) & (raw <= MAX_TIME), raw, -1)
    for _, times, part in UNITS if (ts < 0).any() else ():
        scaled = _in_unit(raw, times, part)
        ts = np.where((ts < 0) & (scaled >= MIN_TIME) & (scaled <= MAX_TIME), scaled, ts)
    return ts


def _in_unit(raw: Ints, times: int, part: int) -> Ints:
    """Milliseconds, rounded half up; -1 for what is out of all range."""
    within = (raw >= 0) & (raw <= min(MAX_TIME * part // times, np.iinfo(np.int64).max - part))
    return np.where(within, (np.where(within, raw, 0) * times + part // 2) // part, -1)
