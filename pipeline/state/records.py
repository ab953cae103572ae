"""Codecs of a partition's state: a record per series, one about the partition, and a commit's metadata.

Every value is a format byte, a MessagePack array, and the CRC-32 of the key and both. Earlier formats are readable. A
series' values are float32, as in earlier versions, or float64 in a format of its own where they would lose digits.
Sections are the array's last element, which is left out if there are none. A series' value that is larger than a record
may be is split: the first part has the series' key, the others keys of their own.
"""

import re
import zlib
from collections.abc import Mapping
from hashlib import sha256
from typing import TypeVar

import msgspec
import numpy as np

from pipeline.windows.batch import UNKNOWN, Section, Sections, SeriesState
from pipeline.windows.grid import WindowConfig
from pipeline.windows.reorder import BEFORE_ALL, PendingStep
from tidecast.errors import CorruptState, StateMismatch

FIRST, FORMAT, SPLIT, WIDE = 1, 2, 3, 4
"""Formats. The checksum of FIRST does not include the key. SPLIT is a state's first record where it has several: their
number, and the first part of the state. In WIDE a series' values are float64."""
PARTITION_KEY = b"partition"
SERIES_PREFIX = b"s:"
PART_PREFIX = b"p:"
METADATA = re.compile(r"(tidecast:1:(\d{1,19})):([0-9a-f]{8})", re.ASCII)


class PartitionRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a partition's state belongs to."""

    position: int
    """P: the offset up to which the state includes the input."""
    partitions: int
    """The input topic's number of partitions."""
    topic_id: str
    """The input topic's id."""
    stream_time: int | None = None
    """The latest time of any of its events, epoch milliseconds; None: that of its series."""
    sections: dict[str, Section] = {}
    """Sections of the partition."""


class _SeriesRecord(msgspec.Struct, frozen=True, array_like=True):
    """A series' state. Fields with a default are missing in format 1."""

    config: bytes
    step: int
    ts: int
    steps: int
    values: bytes
    observed: bytes
    times: bytes | None = None
    last_event_ts: int | None = None
    pending: list[PendingStep] = []
    first_offset: tuple[int, int, int] | None = None
    sections: dict[str, Section] = {}


Body = TypeVar("Body", PartitionRecord, _SeriesRecord)


def config_hash(config: WindowConfig | None) -> bytes:
    """8 bytes that differ between configs of different windows. The lateness has no part in them."""
    if config is None:
        return bytes(8)
    grid = config.grid and (config.grid.milliseconds, config.grid.months, config.max_gap, *config.grid.phase)
    content = (config.seq_len, config.features, grid, *((config.aggregate,) if config.aggregate else ()))
    return sha256(msgspec.json.encode(content)).digest()[:8]


def encode_series(config: bytes, series: str, state: SeriesState) -> bytes:
    """Encode a series' state; `config` is the hash of its windows' config."""
    narrow = state.values.astype("<f4")
    lossless = narrow.astype(np.float64).tobytes() == state.values.tobytes()
    values = narrow if lossless else state.values.astype("<f8")
    record = _SeriesRecord(
        config=config,
        step=state.step,
        ts=state.ts,
        steps=len(state.values),
        values=values.tobytes(),
        observed=np.packbits(state.observed).tobytes(),
        times=state.times.astype("<i8").tobytes(),
        last_event_ts=state.last_event_ts,
        pending=list(state.pending),
        first_offset=state.first_offset,
        sections=dict(state.sections),
    )
    return _seal(SERIES_PREFIX + series.encode(), record, FORMAT if lossless else WIDE)


def decode_series(config: bytes, key: bytes, data: bytes) -> tuple[str, SeriesState]:
    """Decode a series and its state. Raises CorruptState; StateMismatch if it has another config or a later format."""
    record = _unseal(key, data, _SeriesRecord)
    if record.config != config:
        raise StateMismatch("it was written with another seq_len, freq, offset, max_gap, aggregate or other features")
    values = np.frombuffer(record.values, "<f8" if data[0] == WIDE else "<f4").astype(np.float64)
    values = values.reshape(record.steps, -1 if record.steps else len(record.pending[0].values))
    observed = np.unpackbits(np.frombuffer(record.observed, np.uint8), count=values.size)
    if record.times is None:
        times = np.full(record.steps, BEFORE_ALL, np.int64)
    else:
        times = np.frombuffer(record.times, "<i8").astype(np.int64)
    state = SeriesState(
        values=values,
        observed=observed.astype(np.bool_).reshape(values.shape),
        step=record.step,
        ts=record.ts,
        times=times,
        last_event_ts=record.ts if record.last_event_ts is None else record.last_event_ts,
        pending=record.pending,
        first_offset=record.first_offset or (UNKNOWN, UNKNOWN, 0),
        sections=record.sections,
    )
    return key.removeprefix(SERIES_PREFIX).decode(), state


def encode_partition(record: PartitionRecord) -> bytes:
    """Encode a partition's record."""
    return _seal(PARTITION_KEY, record)


def decode_partition(data: bytes) -> PartitionRecord:
    """Decode a partition's record. Raises CorruptState, StateMismatch."""
    return _unseal(PARTITION_KEY, data, PartitionRecord)


def check_sections(sections: Sections, readable: Mapping[str, int]) -> None:
    """Raises StateMismatch for a section of a later version than the one that is `readable` by its name.

    A section of another name belongs to another component, and may have any version.
    """
    for name, section in sections.items():
        if section.version > readable.get(name, section.version):
            raise StateMismatch(
                f"its section {name} has version {section.version}, and this version of Tidecast reads up to "
                f"{readable[name]}; use the version that wrote it, or a later one"
            )


def encode_metadata(replay_from: int) -> str:
    """Encode R as a commit's metadata: short ASCII."""
    text = f"tidecast:1:{replay_from}"
    return f"{text}:{zlib.crc32(text.encode()):08x}"


def decode_metadata(metadata: str) -> int | None:
    """Decode R from a commit's metadata; None if Tidecast did not write it."""
    parsed = METADATA.fullmatch(metadata)
    if parsed is None or zlib.crc32(parsed[1].encode()) != int(parsed[3], 16):
        return None
    return int(parsed[2])


def _seal(key: bytes, body: PartitionRecord | _SeriesRecord, kind: int = FORMAT) -> bytes:
    fields = msgspec.structs.astuple(body)
    data = bytes((kind,)) + msgspec.msgpack.encode(fields if body.sections else fields[:-1])
    return data + zlib.crc32(key + data).to_bytes(4, "big")


def _unseal(key: bytes, data: bytes, body: type[Body]) -> Body:
    """Decode a body of any format."""
    content, crc = data[:-4], int.from_bytes(data[-4:], "big")
    keyed, plain = zlib.crc32(key + content), zlib.crc32(content)
    if not content or crc != (plain if content[0] == FIRST else keyed):
        raise CorruptState(f"{len(data)} bytes with a wrong checksum")
    if content[0] not in (FIRST, FORMAT, WIDE):
        raise StateMismatch(f"it has format {content[0]}, and this version of Tidecast reads up to {WIDE}")
    try:
        return msgspec.msgpack.decode(content[1:], type=body)
    except msgspec.DecodeError as error:
        raise CorruptState(str(error)) from None


def part_key(series: bytes, part: int) -> bytes:
    """The key of a later part of a series' state."""
    return b"%b%d:%b" % (PART_PREFIX, part, series)


def split(series: str, state: bytes, size: int) -> list[tuple[bytes, bytes]]:
    """An encoded state as the keys and values of one record, or of several whose values have about `size` bytes."""
    name = series.encode()
    key = SERIES_PREFIX + name
    if len(state) <= size:
        return [(key, state)]
    first, *others = (state[start : start + size] for start in range(0, len(state), size))
    head = bytes((SPLIT,)) + (1 + len(others)).to_bytes(4, "big") + first
    rows = [(part_key(name, part), other) for part, other in enumerate(others, 1)]
    return [(key, head + zlib.crc32(key + head).to_bytes(4, "big")), *rows]


def joined(key: bytes, held: Mapping[bytes, bytes]) -> tuple[bytes, int]:
    """The encoded state of the series with this key, and its number of records. Raises CorruptState."""
    data = held[key]
    if data[:1] != bytes((SPLIT,)) or zlib.crc32(key + data[:-4]) != int.from_bytes(data[-4:], "big"):
        return data, 1
    count, name = int.from_bytes(data[1:5], "big"), key.removeprefix(SERIES_PREFIX)
    try:
        return b"".join((data[5:-4], *(held[part_key(name, part)] for part in range(1, count)))), count
    except KeyError:
        raise CorruptState(f"it lacks one of its {count} records") from None
