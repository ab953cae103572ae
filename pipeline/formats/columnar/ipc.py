"""Reading a stream of Arrow's IPC format: a table of columns as numpy has them.

Whatever the bytes are, they give a table or an InvalidEvent, in bounded memory. Columns are read when they are asked
for; those of other types may be there. Buffers may be compressed, dictionaries replaced or extended between batches.

n rows   K elements of a list
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.formats.columnar.batches import MAX_ROWS, MAX_UNPACKED, TEXTS, Batch, Bools, Words, extended
from pipeline.formats.columnar.metadata import (
    BATCH,
    DICTIONARY,
    FIXED_LIST,
    FLOAT,
    INT,
    NAMES,
    SCHEMA,
    TIMESTAMP,
    Field,
    read_batch,
    read_message,
    read_schema,
)
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.log.limits import COLUMNAR

MAX_MESSAGES = 200
"""Most messages of a stream: its schema, its dictionaries and its batches."""
MAX_SCHEMAS = 100
"""Most schemas that are remembered: nearly all streams of a topic have the same."""

Ints = npt.NDArray[np.int64]

_schemas: dict[bytes, tuple[Field, ...]] = {}


class Numbers(NamedTuple):
    """A column of numbers."""

    values: npt.NDArray[np.generic]
    """(n,), or (n,K) of a list."""
    null: Bools | None
    """(n,): where there is none; None: there is one in every row."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """A column of texts: the different ones, and which of them each row has; or one for each row."""

    words: Words
    codes: Ints
    """(n,): the place of each row's in `words`; -1: null."""

    def rows(self) -> list[str | None]:
        """The text of each row; None: null."""
        words = [*self.words, None]
        return [words[code] for code in self.codes.tolist()]


@contextmanager
def malformed() -> Iterator[None]:
    """What is raised meanwhile by bytes that are not as they should be is an InvalidEvent."""
    try:
        yield
    except (ValueError, IndexError, OverflowError, struct.error, MemoryError) as error:
        raise InvalidEvent("malformed_arrow", f"it is no valid Arrow stream: {error}") from None


class _Frame(NamedTuple):
    kind: int
    metadata: bytes
    body: memoryview


def _frames(value: bytes) -> Iterator[_Frame]:
    """The messages of a stream, up to its end marker, or the end of the value."""
    at, whole = 0, memoryview(value)
    for _ in range(MAX_MESSAGES):
        if at == len(value) or value[at : at + 8] == COLUMNAR + bytes(4):
            return
        size = int.from_bytes(value[at + 4 : at + 8], "little")
        start, metadata = at + 8 + size, value[at + 8 : at + 8 + size]
        if value[at : at + 4] != COLUMNAR or len(metadata) < size:
            raise ValueError(f"it breaks off at byte {at:,}")
        kind, _, length = read_message(metadata)
        at = start + length
        if at > len(value):
            raise ValueError(f"it breaks off in the message that ends at byte {at:,}")
        yield _Frame(kind, metadata, whole[start:at])
    raise ValueError(f"it has more than {MAX_MESSAGES:,} messages")


def count_rows(value: bytes) -> int:
    """How many rows a stream says that it has; 1 if it can't be read, or has more than it may have."""
    try:
        rows = sum(read_batch(read_message(each.metadata)[1]).rows for each in _frames(value) if each.kind == BATCH)
    except (ValueError, IndexError, OverflowError, struct.error):
        return 1
    return rows if 0 < rows <= MAX_ROWS else 1


class _Place(NamedTuple):
    """Where a column begins in every batch: among its arrays, its buffers, and those of a variable number."""

    node: int
    buffer: int
    views: int


def _places(fields: Sequence[Field], variadic: Sequence[int]) -> Iterator[_Place]:
    node = buffer = views = 0

    def skip(each: Field) -> None:
        nonlocal node, buffer, views
        node, buffer = node + 1, buffer + each.stored
        if each.views:
            buffer, views = buffer + variadic[views], views + 1
        for child in each.nested:
            skip(child)

    for each in fields:
        yield _Place(node, buffer, views)
        skip(each)


@dataclass(slots=True)
class Table:
    """The columns of a stream."""

    fields: dict[str, Field]
    rows: int = 0
    _batches: list[Batch] = field(default_factory=list)

    def _parts(self, name: str) -> Iterator[tuple[Field, Batch, _Place]]:
        number = list(self.fields).index(name)
        for batch in self._batches:
            places = list(_places([*self.fields.values()], batch.layout.variadic))
            yield self.fields[name], batch, places[number]

    @property
    def number_names(self) -> list[str]:
        """The columns of numbers that are no times."""
        kinds = self.fields.items()
        return [name for name, kind in kinds if kind.kind in (INT, FLOAT) and kind.index is None and kind.dtype]

    def numbers(self, name: str) -> Numbers:
        """A column of numbers or times, as they are stored. Raises InvalidEvent, as do the others."""
        kind = self.fields[name]
        if kind.index is not None or kind.dtype is None or kind.kind not in (INT, FLOAT, TIMESTAMP):
            raise InvalidEvent("schema", f"`{name}` is of the type {type_name(kind)}, and numbers are expected")
        with malformed():
            parts = [
                (batch.array(at.buffer + 1, kind.dtype, rows), batch.null(at.node, at.buffer, rows))
                for kind, batch, at in self._parts(name)
                if kind.dtype is not None and (rows := batch.layout.rows) >= 0
            ]
        return _joined(parts, kind.dtype)

    def lists(self, name: str) -> Numbers:
        """A column (n,K) of lists of a fixed size, of numbers without nulls."""
        kind = self.fields[name]
        child = kind.children[0] if kind.kind == FIXED_LIST and len(kind.children) == 1 else kind
        if child is kind or child.dtype is None or child.index is not None or not 0 <= kind.size <= MAX_ROWS:
            raise InvalidEvent("schema", f"`{name}` is of the type {type_name(kind)}, and lists are expected")
        with malformed():
            parts = []
            for _, batch, at in self._parts(name):
                rows = batch.layout.rows
                values = batch.array(at.buffer + 2, child.dtype, rows * kind.size).reshape(rows, kind.size)
                parts.append((values, batch.null(at.node, at.buffer, rows)))
        return _joined(parts, child.dtype, kind.size)

    def texts(self, name: str) -> Texts:
        """A column of texts."""
        kind = self.fields[name]
        if kind.kind not in TEXTS:
            raise InvalidEvent("schema", f"`{name}` is of the type {type_name(kind)}, and texts are expected")
        words: list[str] = []
        codes, first = [np.zeros(0, np.int64)], 0
        last: Words | None = None
        found: Words
        with malformed():
            for _, batch, at in self._parts(name):
                null, rows = batch.null(at.node, at.buffer, batch.layout.rows), batch.layout.rows
                if kind.index is None:
                    part, found = np.arange(rows), batch.words(kind.kind, at.buffer, rows, at.views)
                else:
                    part = batch.array(at.buffer + 1, kind.index, rows).astype(np.int64)
                    found = batch.dictionaries.get(kind.dictionary, [])
                if found is not last:
                    first, last = len(words), found
                    words += found
                codes.append(_within(name, part, null, first, len(found)))
        return Texts(words, np.concatenate(codes))


def _within(name: str, codes: Ints, null: Bools | None, first: int, count: int) -> Ints:
    """Numbers of words, of which there are `count`, as numbers of all words; -1 for nulls."""
    real = codes if null is None else codes[~null]
    if len(real) and not 0 <= real.min() <= real.max() < count:
        raise ValueError(f"`{name}` has numbers that its dictionary has not")
    return codes + first if null is None else np.where(null, -1, codes + first)


def type_name(kind: Field) -> str:
    """What a column's type is called."""
    name = NAMES.get(kind.kind, "unknown")
    return f"dictionary<{name}>" if kind.index is not None else name


def _joined(
    parts: Sequence[tuple[npt.NDArray[np.generic], Bools | None]], dtype: np.dtype[np.generic], width: int | None = None
) -> Numbers:
    if len(parts) == 1:
        return Numbers(*parts[0])
    values = [np.zeros(0 if width is None else (0, width), dtype), *(values for values, _ in parts)]
    if all(null is None for _, null in parts):
        return Numbers(np.concatenate(values), None)
    nulls = [np.zeros(len(values), bool) if null is None else null for values, null in parts]
    return Numbers(np.concatenate(values), np.concatenate(nulls))


def read_table(value: bytes) -> Table:
    """The table of a stream. Raises InvalidEvent."""
    with malformed():
        frames = _frames(value)
        first = next(frames, None)
        if first is None or first.kind != SCHEMA:
            raise ValueError("it has no schema")
        fields = _fields(first.metadata)
        table = Table({each.name: each for each in fields})
        if len(table.fields) < len(fields):
            raise InvalidEvent("schema", "two of its columns have the same name")
        dictionaries: Mapping[int, Words] = {}
        budget = [MAX_UNPACKED]
        for frame in frames:
            message = read_message(frame.metadata)[1]
            if frame.kind == BATCH:
                layout = read_batch(message)
                table.rows += layout.rows
                if layout.rows < 0 or table.rows > MAX_ROWS:
                    raise InvalidEvent("too_large", f"it has more than {MAX_ROWS:,} rows")
                table._batches.append(Batch(layout, frame.body, dictionaries, budget))
            elif frame.kind == DICTIONARY:
                dictionaries = extended(dictionaries, fields, message, frame.body, budget)
            else:
                raise ValueError(f"it has a message of the kind {frame.kind}")
        return table


def _fields(metadata: bytes) -> tuple[Field, ...]:
    if (fields := _schemas.get(metadata)) is None:
        if len(_schemas) >= MAX_SCHEMAS:
            _schemas.clear()
        fields = _schemas[metadata] = read_schema(read_message(metadata)[1])
    return fields
