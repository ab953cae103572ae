"""From records to events, in one place for all who read a topic: serving, training, check, explain.

A codec is a function that decodes one record into its events, one or several. What comes in another envelope, or in
columns, is another codec, and nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from pipeline.formats.errors import InvalidEvent
from pipeline.log import Record

Decode: TypeAlias = Callable[[Record], Sequence[Any]]
"""A record's events, in order. Raises InvalidEvent; it is not asked about tombstones."""


class Decoded(NamedTuple):
    """A record and its events, or the error of an invalid one; a tombstone has neither."""

    record: Record
    events: Sequence[Any] = ()
    error: InvalidEvent | None = None


def decode_records(records: Iterable[Record], decode: Decode) -> Iterator[Decoded]:
    """Every record, in order, with what it brings."""
    for record in records:
        yield _decoded(record, decode)


def _decoded(record: Record, decode: Decode) -> Decoded:
    if record.value is None:
        return Decoded(record)
    try:
        return Decoded(record, decode(record))
    except InvalidEvent as error:
        return Decoded(record, error=error)
