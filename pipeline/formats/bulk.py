"""Decodes many records at once: runs of records in our own shape as columns; any other is left to Decoder.decode.

    {"series": "pump-7", "ts": 1700000000000, "value": 21.5}
    {"ts": 1700000000000, "value": 21.5}                        the series is the record's key

N records
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.formats.json import MAX_DEPTH, MAX_HEADERS
from pipeline.formats.series import MAX_SERIES_BYTES
from pipeline.log import Record, Undecodable

FEWEST, PARTS = 8, 8
"""So many records are decoded sooner one by one; and in so many parts are more of them tried that can't be columns."""
QUOTES = 4
"""Of a record whose only fields are `ts` and `value`."""
NOTHING = msgspec.Raw()
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class _Own(msgspec.Struct, gc=False):
    ts: int
    value: float
    series: str | None = None
    values: msgspec.Raw = NOTHING


_LINES = msgspec.json.Decoder(_Own)


class Run(NamedTuple):
    """Records in a row: with their events as columns, or without."""

    records: Sequence[Record]
    series: list[str] | None
    """(N,): None if each record is to be decoded by itself."""
    ts: Ints
    values: Floats
    """(N,1)."""


def one_by_one(records: Sequence[Record]) -> Iterator[Run]:
    """Records that are to be decoded by themselves."""
    yield Run(records, None, np.empty(0, np.int64), np.empty((0, 1)))


def runs(
    records: Sequence[Record],
    known: AbstractSet[str],
    keyed: Callable[[bytes | None], str | None],
    possible: Callable[[Ints, Ints, Floats], npt.NDArray[np.bool_]],
) -> Iterator[Run]:
    """The records in order. `known` are names of series that have been checked; `keyed` gives that of a record's key,
    if it is one; `possible` says of the events' times, their records' times and their values which need no other look.
    """
    columns = _columns(records, known, keyed) if len(records) >= FEWEST else None
    if columns is None and len(records) >= 2 * FEWEST:
        size = max(FEWEST, -(-len(records) // PARTS))
        for start in range(0, len(records), size):
            yield from runs(records[start : start + size], known, keyed, possible)
    elif columns is None:
        yield from one_by_one(records)
    else:
        series, ts, values = columns
        fits = possible(ts, np.array([record.timestamp for record in records], np.int64), values[:, 0])
        stops = [*(np.flatnonzero(fits[1:] != fits[:-1]) + 1).tolist(), len(records)]
        for start, stop in zip([0, *stops], stops, strict=False):
            part = slice(start, stop)
            yield Run(records[part], series[part] if fits[start] else None, ts[part], values[part])


def _columns(
    records: Sequence[Record], known: AbstractSet[str], keyed: Callable[[bytes | None], str | None]
) -> tuple[list[str], Ints, Floats] | None:
    """The series, times and values of records that are all in our own shape; else None.

    Each is a line. As each begins and ends with a brace, none can be continued by the next.
    """
    payloads = [record.value or b"" for record in records]
    if max(map(len, payloads)) > MAX_DEPTH:
        return None
    lines = b"\n".join(payloads)
    if lines.count(b"}\n{") != len(records) - 1:
        return None
    if lines[:1] != b"{" or lines[-1:] != b"}" or lines.count(b"\n") != len(records) - 1:
        return None
    if any(type(headers) is Undecodable or len(headers) > MAX_HEADERS for headers in _headers(records)):
        return None
    try:
        events = _LINES.decode_lines(lines)
        if not lines.isascii():
            lines.decode()  # the decoder does not validate the fields that it skips
        ts = np.array([event.ts for event in events], np.int64)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError):
        return None
    if len(events) != len(records) or any(event.values is not NOTHING for event in events):
        return None
    series = _series(records, [name for event in events if (name := event.series) is not None], known, keyed, lines)
    return (series, ts, np.array([event.value for event in events]).reshape(-1, 1)) if series else None


def _series(
    records: Sequence[Record],
    named: list[str],
    known: AbstractSet[str],
    keyed: Callable[[bytes | None], str | None],
    lines: bytes,
) -> list[str]:
    """The series of records: the `named` ones if all are, or their keys if no field can name any; else empty."""
    if len(named) == len(records):
        return named if known >= set(named) or _plain(named) else []
    if named or lines.count(b'"') != QUOTES * len(records):
        return []
    keys = [record.key for record in records]
    names = {key: name for key in set(keys) if (name := keyed(key)) is not None}
    return [names[key] for key in keys] if names.keys() >= set(keys) else []


def _headers(records: Sequence[Record]) -> list[Sequence[tuple[str, bytes]]]:
    """The headers of those that have any, or that can't be decoded."""
    return [headers for record in records if (headers := record.headers) or type(headers) is Undecodable]


def _plain(names: Sequence[str]) -> bool:
    """Whether names are valid for series at first sight: ASCII without control characters, short, not blank."""
    together = "".join(names)
    sizes = set(map(len, names))
    short = min(sizes) > 0 and max(sizes) <= MAX_SERIES_BYTES
    return short and together.isascii() and together.isprintable() and not any(map(str.isspace, names))
