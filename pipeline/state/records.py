"""A partition's state as bytes, and back: one record a series, one about the partition, and a commit's metadata.

Every value is a format byte, a MessagePack array and the CRC-32 of the key and both. This format reads the one before.
Sections are the array's last element, which is left out where there are none.
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

FORMAT = 2
PARTITION_KEY = b"partition"
SERIES_PREFIX = b"s:"
METADATA = re.compile(r"(tidecast:1:(\d{1,19})):([0-9a-f]{8})", re.ASCII)


class PartitionRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a partition's state is the state of."""

    position: int
    """P: the offset up to which the input has been seen."""
    partitions: int
    """How many partitions the input topic has."""
    topic_id: str
    """The input topic's identity."""
    stream_time: int | None = None
    """The latest time of any of its events, epoch milliseconds; None: the latest of its series."""
    sections: dict[str, Section] = {}
    """What is kept of the partition beside its series."""


class _SeriesRecord(msgspec.Struct, frozen=True, array_like=True):
    """What format 1 had, and after it what it had not."""

    config: bytes
    step: int
    ts: int
    steps: int
    values: bytes
    observed: bytes
    times: bytes | None = None
    last_event_ts: int | None = None
    waiting: list[PendingStep] = []
    first_offset: tuple[int, int, int] | None = None
    sections: dict[str, Section] = {}


Body = TypeVar("Body", PartitionRecord, _SeriesRecord)


def config_hash(config: WindowConfig | None) -> bytes:
    """8 bytes that differ between configs with different windows; how long events wait is no part of a window."""
    if config is None:
        return bytes(8)
    grid = config.grid and (config.grid.milliseconds, config.grid.months, config.max_gap)
    content = (config.seq_len, config.features, grid, *((config.aggregate,) if config.aggregate else ()))
    return sha256(msgspec.json.encode(content)).digest()[:8]


def encode_series(config: bytes, series: str, state: SeriesState) -> bytes:
    """A series' state as bytes; `config` is the hash of its windows' config."""
    record = _SeriesRecord(
        config=config,
        step=state.step,
        ts=state.ts,
        steps=len(state.values),
        values=state.values.astype("<f4").tobytes(),
        observed=np.packbits(state.observed).tobytes(),
        times=state.times.astype("<i8").tobytes(),
        last_event_ts=state.last_event_ts,
        waiting=list(state.waiting),
        first_offset=state.first_offset,
        sections=dict(state.sections),
    )
    return _seal(SERIES_PREFIX + series.encode(), record)


def decode_series(config: bytes, key: bytes, data: bytes) -> tuple[str, SeriesState]:
    """The series and the state that were encoded. Raises CorruptState, or StateMismatch if with another config."""
    record = _unseal(key, data, _SeriesRecord)
    if record.config != config:
        raise StateMismatch("it was made with another seq_len, freq, max_gap, aggregate or other features")
    values = np.frombuffer(record.values, "<f4").astype(np.float32)
    values = values.reshape(record.steps, -1 if record.steps else len(record.waiting[0].values))
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
        waiting=record.waiting,
        first_offset=record.first_offset or (UNKNOWN, UNKNOWN, 0),
        sections=record.sections,
    )
    return key.removeprefix(SERIES_PREFIX).decode(), state


def encode_partition(record: PartitionRecord) -> bytes:
    """A partition's record as bytes."""
    return _seal(PARTITION_KEY, record)


def decode_partition(data: bytes) -> PartitionRecord:
    """The record that was encoded. Raises CorruptState, StateMismatch."""
    return _unseal(PARTITION_KEY, data, PartitionRecord)


def check_sections(sections: Sections, readable: Mapping[str, int]) -> None:
    """Raises StateMismatch for a section of a later version than the one that is `readable` under its name.

    One whose name is not there is somebody else's, and right in any version.
    """
    for name, section in sections.items():
        if section.version > readable.get(name, section.version):
            raise StateMismatch(
                f"its section {name} has version {section.version}, and this version of Tidecast reads up to "
                f"{readable[name]}; the one that wrote it, or a later one, goes on with it"
            )


def encode_metadata(replay_from: int) -> str:
    """R as a commit's metadata: short ASCII."""
    text = f"tidecast:1:{replay_from}"
    return f"{text}:{zlib.crc32(text.encode()):08x}"


def decode_metadata(metadata: str) -> int | None:
    """The R in a commit's metadata; None if it is not ours."""
    parsed = METADATA.fullmatch(metadata)
    if parsed is None or zlib.crc32(parsed[1].encode()) != int(parsed[3], 16):
        return None
    return int(parsed[2])


def _seal(key: bytes, body: PartitionRecord | _SeriesRecord) -> bytes:
    fields = msgspec.structs.astuple(body)
    data = bytes((FORMAT,)) + msgspec.msgpack.encode(fields if body.sections else fields[:-1])
    return data + zlib.crc32(key + data).to_bytes(4, "big")


def _unseal(key: bytes, data: bytes, body: type[Body]) -> Body:
    """The body, of this format or the one before, whose checksum was without the key."""
    content, crc = data[:-4], int.from_bytes(data[-4:], "big")
    keyed, plain = zlib.crc32(key + content), zlib.crc32(content)
    if not content or crc != (plain if content[0] == FORMAT - 1 else keyed):
        raise CorruptState(f"{len(data)} bytes with a wrong checksum")
    if content[0] not in (FORMAT, FORMAT - 1):
        raise StateMismatch(f"it has format {content[0]}, and this version of Tidecast reads up to {FORMAT}")
    try:
        return msgspec.msgpack.decode(content[1:], type=body)
    except msgspec.DecodeError as error:
        raise CorruptState(str(error)) from None
