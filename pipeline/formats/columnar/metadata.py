"""The metadata of Arrow's IPC format: messages, schemas and batches, as FlatBuffers have them.

They are read by ourselves because nothing may end the process, whatever the bytes are (adr/0031): every access is
within `bytes`, and how much there may be is limited. Anything malformed raises ValueError, or struct.error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Self

import numpy as np
import numpy.typing as npt

MAX_FIELDS = 2_000
"""Most fields of a schema, nested ones too."""
SCHEMA, DICTIONARY, BATCH = 1, 2, 3
"""The kinds of messages."""
CODECS = ("lz4", "zstd")
UNITS = ("s", "ms", "us", "ns")

_I8, _U8, _I16, _U16, _I32, _U32, _I64 = map(Struct, ("<b", "<B", "<h", "<H", "<i", "<I", "<q"))

INT, FLOAT, TEXT, TIMESTAMP, FIXED_LIST, LARGE_TEXT, TEXT_VIEW = 2, 3, 5, 10, 16, 20, 24
_BUFFERS = {1: 0, INT: 2, FLOAT: 2, 4: 3, TEXT: 3, 6: 2, 7: 2, 8: 2, 9: 2, TIMESTAMP: 2, 11: 2, 12: 2, 13: 1, 15: 2}
_BUFFERS |= {FIXED_LIST: 1, 17: 2, 18: 2, 19: 3, LARGE_TEXT: 3, 21: 2, 22: 0, 23: 2, TEXT_VIEW: 2, 25: 3, 26: 3}
_UNION, _VIEWS = 14, (23, TEXT_VIEW)
NAMES = {1: "null", INT: "int", FLOAT: "float", 4: "binary", TEXT: "utf8", 6: "bool", 7: "decimal", 8: "date"}
NAMES |= {9: "time", TIMESTAMP: "timestamp", 11: "interval", 12: "list", 13: "struct", 14: "union", FIXED_LIST: "list"}
NAMES |= {17: "map", 18: "duration", LARGE_TEXT: "utf8", TEXT_VIEW: "utf8"}
"""What the types are called in an error."""


class Node:
    """A table of a FlatBuffer, at a place in it. A slot that is not there has its default."""

    __slots__ = ("_at", "_data", "_size", "_vtable")

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - _I32.unpack_from(data, at)[0]
        if self._vtable < 0:
            raise ValueError("a table lies outside")
        self._size: int = _U16.unpack_from(data, self._vtable)[0]

    @classmethod
    def root(cls, data: bytes) -> Self:
        """The root of a FlatBuffer."""
        return cls(data, _U32.unpack_from(data, 0)[0])

    def _place(self, slot: int) -> int:
        entry = 4 + 2 * slot
        if entry >= self._size:
            return 0
        offset: int = _U16.unpack_from(self._data, self._vtable + entry)[0]
        return self._at + offset if offset else 0

    def number(self, slot: int, form: Struct, default: int = 0) -> int:
        """A number."""
        place = self._place(slot)
        return int(form.unpack_from(self._data, place)[0]) if place else default

    def _target(self, slot: int) -> int:
        place = self._place(slot)
        return place + int(_U32.unpack_from(self._data, place)[0]) if place else 0

    def table(self, slot: int) -> "Node | None":
        """A table."""
        target = self._target(slot)
        return Node(self._data, target) if target else None

    def vector(self, slot: int, width: int) -> bytes:
        """The elements of a vector, each of `width` bytes."""
        target = self._target(slot)
        if not target:
            return b""
        end = target + 4 + width * int(_U32.unpack_from(self._data, target)[0])
        if end > len(self._data):
            raise ValueError("a vector is longer than its message")
        return self._data[target + 4 : end]

    def text(self, slot: int) -> str:
        """A string."""
        return self.vector(slot, 1).decode()

    def tables(self, slot: int) -> Iterator["Node"]:
        """A vector of tables."""
        start = self._target(slot) + 4
        for place in range(start, start + len(self.vector(slot, 4)), 4):
            yield Node(self._data, place + int(_U32.unpack_from(self._data, place)[0]))


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a schema, or what is nested in one."""

    name: str
    kind: int
    """Of its type, or of its dictionary's values."""
    dtype: np.dtype[np.generic] | None
    """Of its numbers; None for what has none, and for numbers of a width that is none."""
    index: np.dtype[np.generic] | None = None
    """Of the numbers of its dictionary's values, if it is encoded by one."""
    dictionary: int = -1
    unit: str = ""
    zone: str = ""
    size: int = 0
    """Of a list of fixed size."""
    buffers: int = 2
    children: tuple["Field", ...] = ()

    @property
    def stored(self) -> int:
        """How many buffers a batch has of it."""
        return 2 if self.index is not None else self.buffers

    @property
    def nested(self) -> tuple["Field", ...]:
        """The fields of which a batch has arrays after its own."""
        return () if self.index is not None else self.children

    @property
    def views(self) -> bool:
        """Whether a batch has a variable number of buffers of it."""
        return self.index is None and self.kind in _VIEWS


def read_schema(message: Node) -> tuple[Field, ...]:
    """The fields of a message that is a schema."""
    schema = message.table(2)
    if schema is None:
        raise ValueError("there is no schema")
    if schema.number(0, _I16):
        raise ValueError("its numbers are big-endian")
    left = iter(range(MAX_FIELDS))
    return tuple(_field(node, left) for node in schema.tables(1))


def _field(node: Node, left: Iterator[int], depth: int = 0) -> Field:
    if next(left, None) is None or depth > 30:
        raise ValueError(f"there are more than {MAX_FIELDS:,} fields")
    kind, type_, encoding = node.number(2, _U8), node.table(3), node.table(4)
    if type_ is None or (kind not in _BUFFERS and kind != _UNION):
        raise ValueError(f"a column is of the unknown type {kind}")
    index = _integer(encoding.table(1)) if encoding else None
    if encoding and index is None:
        raise ValueError("a dictionary has no index")
    return Field(
        name=node.text(0),
        kind=kind,
        dtype=_dtype(kind, type_),
        index=index,
        dictionary=encoding.number(0, _I64) if encoding else -1,
        unit=UNITS[type_.number(0, _I16) % 4] if kind == TIMESTAMP else "",
        zone=type_.text(1) if kind == TIMESTAMP else "",
        size=type_.number(0, _I32) if kind == FIXED_LIST else 0,
        buffers=1 + type_.number(0, _I16) % 2 if kind == _UNION else _BUFFERS[kind],
        children=tuple(_field(child, left, depth + 1) for child in node.tables(5)),
    )


def _dtype(kind: int, type_: Node) -> np.dtype[np.generic] | None:
    if kind == INT:
        return _integer(type_)
    if kind == FLOAT:
        return np.dtype(("<f2", "<f4", "<f8")[type_.number(0, _I16) % 3])
    return np.dtype("<i8") if kind == TIMESTAMP else None


def _integer(type_: Node | None) -> np.dtype[np.generic] | None:
    """Of an integer's type; a dictionary's numbers are int32 where it isn't said."""
    if type_ is None:
        return np.dtype("<i4")
    width = type_.number(0, _I32)
    return np.dtype(f"<{'i' if type_.number(1, _U8) else 'u'}{width // 8}") if width in (8, 16, 32, 64) else None


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a batch's arrays: how many rows there are, and where in its body they lie."""

    rows: int
    nodes: npt.NDArray[np.int64]
    """(arrays,2): the length of each, and how many of it are null."""
    buffers: npt.NDArray[np.int64]
    """(buffers,2): the place and the length of each."""
    codec: str
    """By which buffers are compressed; empty: they aren't."""
    variadic: tuple[int, ...]
    """Of each array of views, how many buffers more it has."""


def read_layout(batch: Node) -> Layout:
    """The layout of a batch."""
    compression = batch.table(3)
    variadic = np.frombuffer(batch.vector(4, 8), np.int64)
    return Layout(
        rows=batch.number(0, _I64),
        nodes=np.frombuffer(batch.vector(1, 16), np.int64).reshape(-1, 2),
        buffers=np.frombuffer(batch.vector(2, 16), np.int64).reshape(-1, 2),
        codec=CODECS[compression.number(0, _I8) % 2] if compression else "",
        variadic=tuple(variadic.tolist()),
    )


def read_message(metadata: bytes) -> tuple[int, Node, int]:
    """The kind of a message, itself, and the length of its body."""
    message = Node.root(metadata)
    kind, length = message.number(1, _U8), message.number(3, _I64)
    if length < 0:
        raise ValueError("a body has a negative length")
    return kind, message, length


def read_batch(message: Node) -> Layout:
    """The layout of a message that is a batch."""
    batch = message.table(2)
    if batch is None:
        raise ValueError("there is no batch")
    return read_layout(batch)


def read_dictionary(message: Node) -> tuple[int, Layout, bool]:
    """The dictionary that a message is of, the layout of its values, and whether they are more of them."""
    header = message.table(2)
    values = header.table(1) if header else None
    if header is None or values is None:
        raise ValueError("there is no dictionary")
    return header.number(0, _I64), read_layout(values), bool(header.number(2, _U8))
