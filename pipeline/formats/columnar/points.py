"""The events of a columnar message: one point in each row."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.formats.columnar.ipc import Ints
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.log import Record, StoredRecord
from pipeline.log.limits import COLUMNAR

Reals = npt.NDArray[np.float64]


def row_record(
    record: Record, series: str | None, ts: object, values: Sequence[float], features: Sequence[str]
) -> StoredRecord:
    """A row of a columnar record as a record of its own; values that are no numbers are null."""
    named = dict(zip(features, values, strict=True))
    event: dict[str, object] = {"series": series, "ts": ts}
    event |= named if tuple(named) == ("value",) else {"values": named}
    value = msgspec.json.encode(event)
    place = record.topic, record.partition, record.offset, record.timestamp
    return StoredRecord(*place, record.key, value, record.headers)


@dataclass(frozen=True, slots=True, eq=False)
class Points(Sequence[Any]):
    """The events of a columnar record: n points of F features, and the rows that are none, with the reasons."""

    record: Record
    features: tuple[str, ...]
    series: Sequence[str]
    """(n,)."""
    ts: Ints
    """(n,): epoch milliseconds."""
    values: Reals
    """(n,F)."""
    event: Callable[[str, int, tuple[float, ...]], Any]
    """Makes an event of a row."""
    invalid: Sequence[tuple[StoredRecord, InvalidEvent]] = ()

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Iterator[Any]:
        return map(self.event, self.series, self.ts.tolist(), map(tuple, self.values.tolist()))

    @overload
    def __getitem__(self, row: int) -> Any: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Any]: ...
    def __getitem__(self, row: int | slice) -> Any:
        return list(self)[row]

    def row(self, number: int) -> StoredRecord:
        """A point as the record of a JSON event."""
        values = self.values[number].tolist()
        return row_record(self.record, self.series[number], int(self.ts[number]), values, self.features)


class Chunk(NamedTuple):
    """n events in columns, by time."""

    series: Sequence[str]
    """(n,)."""
    ts: Ints
    """(n,): epoch milliseconds, ascending, also from one chunk to the next."""
    values: Reals
    """(n,F): of the features."""


def is_columnar(value: bytes | None) -> bool:
    """Whether a record's value is a columnar message, by its first bytes."""
    return value is not None and value.startswith(COLUMNAR)
