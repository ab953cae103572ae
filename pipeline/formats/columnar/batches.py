"""The batches of a stream of Arrow's IPC format: their arrays, out of the body of a message.

Where bytes are not as they should be, ValueError or IndexError is raised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import lz4.frame
import numpy as np
import numpy.typing as npt
import zstandard

from pipeline.formats.columnar.metadata import LARGE_TEXT, TEXT, TEXT_VIEW, Field, Layout, Node, read_dictionary
from pipeline.formats.dead_letters import InvalidEvent

MAX_ROWS = 65_536
"""Most rows of a stream, and most words of a dictionary."""
MAX_UNPACKED = 16 << 20
"""Most bytes of a stream's buffers after decompression."""
TEXTS = (TEXT, LARGE_TEXT, TEXT_VIEW)
"""The types of texts."""

Words = Sequence[str]
Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Batch:
    """A batch's layout and body, and the dictionaries as they were when it came."""

    layout: Layout
    body: memoryview
    dictionaries: Mapping[int, Words]
    budget: list[int]
    """How many bytes may still be unpacked."""

    def buffer(self, number: int) -> bytes | memoryview:
        """A buffer, unpacked."""
        place, length = self.layout.buffers[number].tolist()
        if not 0 <= place <= place + length <= len(self.body):
            raise ValueError("a buffer lies outside its message")
        raw = self.body[place : place + length]
        return self._unpacked(raw) if self.layout.codec and length else raw

    def _unpacked(self, raw: memoryview) -> bytes | memoryview:
        size = int.from_bytes(raw[:8], "little", signed=True)
        if size == -1:
            return raw[8:]
        self.budget[0] -= size
        if size < 0 or self.budget[0] < 0:
            raise InvalidEvent("too_large", f"it unpacks to more than {MAX_UNPACKED:,} bytes")
        try:
            if self.layout.codec == "lz4":
                unpacked = lz4.frame.LZ4FrameDecompressor().decompress(raw[8:], size)
            else:
                with zstandard.ZstdDecompressor(max_window_size=MAX_UNPACKED).stream_reader(raw[8:]) as reader:
                    unpacked = reader.read(size)
        except Exception as error:  # two libraries raise different ones
            raise ValueError(f"a buffer can't be unpacked: {error}") from None
        return bytes(unpacked)

    def array(self, number: int, dtype: np.dtype[np.generic], count: int) -> npt.NDArray[np.generic]:
        """The first numbers of a buffer."""
        return np.frombuffer(self.buffer(number), dtype, count) if count else np.zeros(0, dtype)

    def null(self, node: int, buffer: int, rows: int) -> Bools | None:
        """Where an array has nulls; None if nowhere."""
        length, nulls = self.layout.nodes[node].tolist()
        if length != rows:
            raise ValueError("a column is not as long as its batch")
        if not nulls:
            return None
        bits = np.frombuffer(self.buffer(buffer), np.uint8)
        return np.unpackbits(bits, count=rows, bitorder="little") == 0 if len(bits) or rows == 0 else None

    def words(self, kind: int, buffer: int, rows: int, views: int) -> list[str]:
        """The texts of an array; `views` is its place among those with a variable number of buffers."""
        if not rows:
            return []
        if kind == TEXT_VIEW:
            return self._viewed(buffer, rows, views)
        offsets = self.array(buffer + 1, np.dtype("<i4" if kind == TEXT else "<i8"), rows + 1).tolist()
        data = bytes(self.buffer(buffer + 2))
        if offsets[0] < 0 or offsets[-1] > len(data) or any(start > stop for start, stop in pairwise(offsets)):
            raise ValueError("texts lie outside their buffer")
        if data.isascii():
            text = data.decode()
            return [text[start:stop] for start, stop in pairwise(offsets)]
        return [data[start:stop].decode() for start, stop in pairwise(offsets)]

    def _viewed(self, buffer: int, rows: int, views: int) -> list[str]:
        raw = bytes(self.buffer(buffer + 1))
        if len(raw) < 16 * rows:
            raise ValueError("a column of texts is too short")
        more = [self.buffer(buffer + 2 + number) for number in range(min(self.layout.variadic[views], len(raw)))]
        known: dict[bytes, str] = {}
        found = []
        for at in range(0, 16 * rows, 16):
            view = raw[at : at + 16]
            if (word := known.get(view)) is None:
                size, which, start = (int.from_bytes(view[part : part + 4], "little") for part in (0, 8, 12))
                data = view[4 : 4 + size] if size <= 12 else more[which][start : start + size]
                if len(data) != size:
                    raise ValueError("texts lie outside their buffer")
                word = known[view] = bytes(data).decode()
            found.append(word)
        return found


def extended(
    dictionaries: Mapping[int, Words], fields: Sequence[Field], message: Node, body: memoryview, budget: list[int]
) -> Mapping[int, Words]:
    """The dictionaries after a message that sets or extends one; those that no column of texts has are left out."""
    number, layout, more = read_dictionary(message)
    kind = next((each for each in fields if each.dictionary == number and each.kind in TEXTS), None)
    if kind is None:
        return dictionaries
    before = dictionaries.get(number, ()) if more else ()
    if not 0 <= layout.rows <= MAX_ROWS - len(before):
        raise InvalidEvent("too_large", f"it has a dictionary of more than {MAX_ROWS:,} words")
    batch = Batch(layout, body, {}, budget)
    if batch.null(0, 0, layout.rows) is not None:
        raise InvalidEvent("schema", f"the dictionary of `{kind.name}` has nulls")
    return {**dictionaries, number: [*before, *batch.words(kind.kind, 0, layout.rows, 0)]}
