"""Writing a stream of Arrow's IPC format: a schema, the dictionaries of its texts, and one batch.

n rows   K elements of a list
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import flatbuffers
import numpy as np
import numpy.typing as npt

from pipeline.formats.columnar.metadata import (
    BATCH,
    DICTIONARY,
    FIXED_LIST,
    FLOAT,
    INT,
    SCHEMA,
    TEXT,
    TIMESTAMP,
    UNITS,
)
from pipeline.log.limits import COLUMNAR

V5 = 4
PADDING = 8
"""Metadata and buffers begin at multiples of so many bytes."""


class Words(NamedTuple):
    """A column of texts: the different ones, and the place of each row's."""

    words: Sequence[str]
    codes: npt.NDArray[np.int32]
    """(n,)."""


class Moments(NamedTuple):
    """A column of timestamps in UTC."""

    ts: npt.NDArray[np.int64]
    """(n,): epoch milliseconds."""


Column = Words | Moments | npt.NDArray[np.generic]
"""An array is a column of its own type: whole or floating-point numbers, (n,), or lists of these, (n,K)."""


class _Type(NamedTuple):
    kind: int
    width: int = 0
    """Bytes of a number."""
    size: int = 0
    """Elements of a list, whose numbers are floating-point; 0: it is none."""


def words_of(texts: Sequence[str]) -> Words:
    """A column of texts."""
    words = list(dict.fromkeys(texts))
    if len(words) == 1:
        return Words(words, np.zeros(len(texts), np.int32))
    places = dict(zip(words, range(len(words)), strict=True))
    return Words(words, np.fromiter(map(places.__getitem__, texts), np.int32, len(texts)))


def write_stream(columns: Mapping[str, Column]) -> bytes:
    """A stream of one batch of these columns. In a column of numbers that are not lists, NaN is null."""
    types = tuple((name, _type(column)) for name, column in columns.items())
    parts = [_schema(types)]
    texts = [column for column in columns.values() if isinstance(column, Words)]
    parts += [_dictionary(number, column.words) for number, column in enumerate(texts)]
    rows = len(next(iter(columns.values()))) if not texts else len(texts[0].codes)
    arrays = _Arrays()
    for column in columns.values():
        arrays.add(column, rows)
    parts.append(arrays.message(rows, None))
    parts.append(COLUMNAR + bytes(4))
    return b"".join(parts)


def _type(column: Column) -> _Type:
    if isinstance(column, Words):
        return _Type(TEXT)
    if isinstance(column, Moments):
        return _Type(TIMESTAMP, 8)
    kind = FLOAT if column.dtype.kind == "f" else INT
    return _Type(kind, column.itemsize, column.shape[1] if column.ndim == 2 else 0)


class _Arrays:
    """The arrays of a batch as they are written: how long each is, and its buffers."""

    def __init__(self) -> None:
        self._nodes: list[int] = []
        self._buffers: list[int] = []
        self._body: list[bytes] = []
        self._length = 0

    def add(self, column: Column, rows: int) -> None:
        """Add a column."""
        if isinstance(column, Words):
            self._add(rows, column.codes)
        elif isinstance(column, Moments):
            self._add(rows, column.ts)
        elif column.ndim == 2:
            self._nodes += (rows, 0)
            self._buffer(b"")
            self._add(column.size, column)
        else:
            null = np.isnan(column) if column.dtype.kind == "f" else None
            self._add(rows, column, null if null is not None and null.any() else None)

    def add_texts(self, words: Sequence[str]) -> None:
        """Add an array of texts."""
        encoded = [word.encode() for word in words]
        self._nodes += (len(words), 0)
        self._buffer(b"")
        self._buffer(np.cumsum([0, *map(len, encoded)], dtype=np.int32).tobytes())
        self._buffer(b"".join(encoded))

    def _add(self, rows: int, numbers: npt.NDArray[np.generic], null: npt.NDArray[np.bool_] | None = None) -> None:
        self._nodes += (rows, 0 if null is None else int(null.sum()))
        self._buffer(b"" if null is None else np.packbits(~null, bitorder="little").tobytes())
        self._buffer(numbers.tobytes())

    def _buffer(self, content: bytes) -> None:
        self._buffers += (self._length, len(content))
        padded = content + bytes(-len(content) % PADDING)
        self._body.append(padded)
        self._length += len(padded)

    def message(self, rows: int, dictionary: int | None) -> bytes:
        """The message of a batch, or of a dictionary's words."""
        builder = flatbuffers.Builder(1024)
        buffers, nodes = _structs(builder, self._buffers), _structs(builder, self._nodes)
        builder.StartObject(5)
        builder.PrependInt64Slot(0, rows, 0)
        builder.PrependUOffsetTRelativeSlot(1, nodes, 0)
        builder.PrependUOffsetTRelativeSlot(2, buffers, 0)
        header, kind = builder.EndObject(), BATCH
        if dictionary is not None:
            batch = header
            builder.StartObject(3)
            builder.PrependInt64Slot(0, dictionary, -1)
            builder.PrependUOffsetTRelativeSlot(1, batch, 0)
            header, kind = builder.EndObject(), DICTIONARY
        return _message(builder, kind, header, self._length) + b"".join(self._body)


def _dictionary(number: int, words: Sequence[str]) -> bytes:
    arrays = _Arrays()
    arrays.add_texts(words)
    return arrays.message(len(words), number)


def _structs(builder: flatbuffers.Builder, numbers: Sequence[int]) -> int:
    """A vector of pairs of numbers."""
    raw = np.array(numbers, np.int64).tobytes()
    builder.StartVector(16, len(numbers) // 2, 8)
    builder.head -= len(raw)
    builder.Bytes[builder.head : builder.head + len(raw)] = raw
    return int(builder.EndVector())


def _message(builder: flatbuffers.Builder, kind: int, header: int, body: int) -> bytes:
    builder.StartObject(5)
    builder.PrependInt16Slot(0, V5, 0)
    builder.PrependUint8Slot(1, kind, 0)
    builder.PrependUOffsetTRelativeSlot(2, header, 0)
    builder.PrependInt64Slot(3, body, 0)
    builder.Finish(builder.EndObject())
    metadata = bytes(builder.Output())
    metadata += bytes(-len(metadata) % PADDING)
    return COLUMNAR + len(metadata).to_bytes(4, "little") + metadata


@lru_cache(256)
def _schema(types: tuple[tuple[str, _Type], ...]) -> bytes:
    builder = flatbuffers.Builder(1024)
    fields, dictionaries = [], 0
    for name, each in types:
        fields.append(_field(builder, name, each, dictionaries if each.kind == TEXT else -1))
        dictionaries += each.kind == TEXT
    vector = _offsets(builder, fields)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(1, vector, 0)
    return _message(builder, SCHEMA, builder.EndObject(), 0)


def _field(builder: flatbuffers.Builder, name: str, given: _Type, dictionary: int) -> int:
    children = [_field(builder, "item", given._replace(size=0), -1)] if given.size else []
    text, vector = builder.CreateString(name), _offsets(builder, children)
    kind = FIXED_LIST if given.size else given.kind
    type_, encoding = _written_type(builder, given), 0
    if dictionary >= 0:
        index = _integer(builder, 4)
        builder.StartObject(4)
        builder.PrependInt64Slot(0, dictionary, -1)
        builder.PrependUOffsetTRelativeSlot(1, index, 0)
        encoding = builder.EndObject()
    builder.StartObject(7)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependBoolSlot(1, True, False)
    builder.PrependUint8Slot(2, kind, 0)
    builder.PrependUOffsetTRelativeSlot(3, type_, 0)
    builder.PrependUOffsetTRelativeSlot(4, encoding, 0)
    builder.PrependUOffsetTRelativeSlot(5, vector, 0)
    return int(builder.EndObject())


def _written_type(builder: flatbuffers.Builder, given: _Type) -> int:
    if given.size:
        builder.StartObject(1)
        builder.PrependInt32Slot(0, given.size, 0)
    elif given.kind == INT:
        return _integer(builder, given.width)
    elif given.kind == FLOAT:
        builder.StartObject(1)
        builder.PrependInt16Slot(0, {2: 0, 4: 1, 8: 2}[given.width], 0)
    elif given.kind == TIMESTAMP:
        zone = builder.CreateString("UTC")
        builder.StartObject(2)
        builder.PrependInt16Slot(0, UNITS.index("ms"), 0)
        builder.PrependUOffsetTRelativeSlot(1, zone, 0)
    else:
        builder.StartObject(0)
    return int(builder.EndObject())


def _integer(builder: flatbuffers.Builder, width: int) -> int:
    builder.StartObject(2)
    builder.PrependInt32Slot(0, 8 * width, 0)
    builder.PrependBoolSlot(1, True, False)
    return int(builder.EndObject())


def _offsets(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for each in reversed(offsets):
        builder.PrependUOffsetTRelative(each)
    return int(builder.EndVector())
