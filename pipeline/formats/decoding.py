"""From records to events, in one place for all readers of a topic: serving, training, check, explain.

A codec is a function that decodes one record into its events, one or several. Another envelope, or a columnar format,
needs another codec and nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.log import Record

Decode: TypeAlias = Callable[[Record], Sequence[Any]]
"""Decodes a record's events, in order. Raises InvalidEvent. It is not called for tombstones."""


class Decoded(NamedTuple):
    """A record with its events, or with its error if it is invalid; a tombstone has neither."""

    record: Record
    events: Sequence[Any] = ()
    error: InvalidEvent | None = None


def decode_records(records: Iterable[Record], decode: Decode) -> Iterator[Decoded]:
    """Decode records, in order. An invalid one does not raise: its error is in the result."""
    for record in records:
        yield _decoded(record, decode)


def _decoded(record: Record, decode: Decode) -> Decoded:
    if record.value is None:
        return Decoded(record)
    try:
        return Decoded(record, decode(record))
    except InvalidEvent as error:
        return Decoded(record, error=error)
