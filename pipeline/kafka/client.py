"""How Tidecast sets up kafka-python, what its errors mean here, and what is mended in it: how batches are read."""

import contextlib
import gzip
import io
from collections.abc import Iterator
from typing import Any

import kafka.record.memory_records
from kafka import codec, errors
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint
from kafka.serializer import Deserializer

from pipeline.events import MAX_VALUE_BYTES
from pipeline.log import Cut, LogError, LogUnavailable, MembershipLost, NotPermitted, Undecodable, UnknownTopic

REQUEST = 15.0
"""Seconds that a broker may take for one answer."""
DELIVERY = 60.0
"""Seconds that a record, or a call on a transaction, may take before it counts as failed."""
TRANSACTION = 60.0
"""Seconds after which the broker aborts a transaction that its producer left open."""
STALL = TRANSACTION + 15.0
"""Seconds that an open transaction can hide records and offsets: until its abort, and the broker looks every 10 s."""
SESSION = 10.0
"""Seconds without a heartbeat after which a member is out of its group."""
MAX_UNPACKED = 32 << 20
"""Bytes that a compressed batch may unpack to; batches of some 1 MiB, as brokers take them, make 20 at the most."""

CLIENT: dict[str, Any] = {
    "bootstrap_timeout_ms": int(REQUEST * 1000),
    "request_timeout_ms": int(REQUEST * 1000),
    "retry_backoff_ms": 20,
    "reconnect_backoff_max_ms": 1000,
    "metadata_max_age_ms": 30_000,
}
CONSUMER: dict[str, Any] = CLIENT | {
    "metrics_enabled": False,
    "enable_auto_commit": False,
    "check_crcs": True,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "session_timeout_ms": int(SESSION * 1000),
    "heartbeat_interval_ms": 500,  # how soon a rebalance is noticed
    "fetch_max_wait_ms": 100,  # how long a partition just sought waits for a fetch that is under way
}
READER: dict[str, Any] = CONSUMER | {"fetch_max_wait_ms": 20}
PRODUCER: dict[str, Any] = CLIENT | {
    "metrics_enabled": False,
    "acks": "all",
    "enable_idempotence": True,
    # One batch a partition is in flight at a time, so its size is what carries the throughput.
    "batch_size": 256 << 10,
    "linger_ms": 5,
    "max_request_size": 16 << 20,
    "max_block_ms": int(STALL * 1000),
    "delivery_timeout_ms": int(DELIVERY * 1000),
    "transaction_timeout_ms": int(TRANSACTION * 1000),
}

MEANINGS: tuple[tuple[type[LogError], tuple[type[Exception], ...]], ...] = (
    (
        MembershipLost,
        (
            errors.CommitFailedError,
            errors.FencedInstanceIdError,
            errors.IllegalGenerationError,
            errors.InvalidProducerEpochError,
            errors.ProducerFencedError,
            errors.UnknownMemberIdError,
        ),
    ),
    (NotPermitted, (errors.AuthorizationError, errors.SaslAuthenticationFailedError)),
    (UnknownTopic, (errors.UnknownTopicOrPartitionError,)),
    (LogUnavailable, (errors.RetriableError, errors.RebalanceInProgressError)),
)


def meaning(error: BaseException, doing: str) -> LogError:
    """The LogError that a client's error is, with what was being done."""
    kind = next((kind for kind, causes in MEANINGS if isinstance(error, causes)), LogError)
    return kind(f"{doing}: {error}")


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise the client's errors as LogErrors that say what was being done."""
    try:
        yield
    except errors.KafkaError as error:
        raise meaning(error, doing) from error


def _gunzipped(packed: memoryview) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(packed)).read(MAX_UNPACKED + 1)


def _unsnapped(packed: memoryview) -> bytes:
    return bytes(codec.snappy_decode(packed.tobytes()))  # a byte makes 22 at the most


def _lz4_unpacked(packed: memoryview) -> bytes:
    return bytes(codec.lz4.LZ4FrameDecompressor().decompress(packed, MAX_UNPACKED + 1))


def _zstd_unpacked(packed: memoryview) -> bytes:
    with codec.zstd.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True) as reader:
        return bytes(reader.read(MAX_UNPACKED + 1))


UNPACK = {
    DefaultRecordBatch.CODEC_GZIP: _gunzipped,
    DefaultRecordBatch.CODEC_SNAPPY: _unsnapped,
    DefaultRecordBatch.CODEC_LZ4: _lz4_unpacked,
    DefaultRecordBatch.CODEC_ZSTD: _zstd_unpacked,
}
"""By a batch's codec: its records' bytes, MAX_UNPACKED and one more of them at the most."""


class _TolerantBatch(DefaultRecordBatch):  # type: ignore[misc]
    """Reads on where the client would raise, spin in the next poll, and never get past; marks such records Undecodable.

    These are records with header keys that are not UTF-8, the offending bytes replaced by "?"; and those of a batch
    that unpacks to more than MAX_UNPACKED, of which there is the position only: the client would unpack any number.
    """

    ASCII = bytes(range(128)) + b"?" * 128
    _buffer: bytearray
    _pos: int
    _decompressed: bool

    def _maybe_uncompress(self) -> None:
        unpack = UNPACK.get(self.compression_type)
        if self._decompressed or unpack is None:
            super()._maybe_uncompress()
            return
        try:
            unpacked = unpack(memoryview(self._buffer)[self._pos :])
        except Exception as error:  # of four libraries, and none that the client knows
            raise errors.CorruptRecordError(
                f"the batch at offset {self.base_offset} can't be unpacked: {error}"
            ) from None
        self._buffer = bytearray(unpacked if len(unpacked) <= MAX_UNPACKED else b"")
        self._pos, self._decompressed = 0, True

    def _read_msg(self) -> Any:
        if not self._buffer:
            return self._position_only()
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._mend_header_keys()
            record = super()._read_msg()
            record._headers = Undecodable(record.headers, "a header key is not UTF-8")
            return record

    def _position_only(self) -> DefaultRecord:
        offset, why = self.base_offset + self._next_record_index, f"its batch unpacks to more than {MAX_UNPACKED} bytes"
        return DefaultRecord(0, offset, self.first_timestamp, self.timestamp_type, None, b"", Undecodable([], why))

    def _mend_header_keys(self) -> None:
        buffer, position = self._buffer, self._pos
        for _ in ("length", "attributes", "timestamp", "offset"):
            _, position = decode_varint(buffer, position)
        for _ in ("key", "value"):
            size, position = decode_varint(buffer, position)
            position += max(0, size)
        count, position = decode_varint(buffer, position)
        for _ in range(count):
            size, position = decode_varint(buffer, position)
            buffer[position : position + size] = buffer[position : position + size].translate(self.ASCII)
            size, position = decode_varint(buffer, position + size)
            position += max(0, size)


kafka.record.memory_records.DefaultRecordBatch = _TolerantBatch


class Shortener(Deserializer):  # type: ignore[misc]
    """Cuts keys and values that are too long for an event: packed, a poll's records may be of any size.

    One byte more than allowed is left, so that they are seen to be too long. Topics in `whole` are left alone.
    """

    def __init__(self) -> None:
        self.whole: set[str] = set()

    def deserialize(self, topic: str, _: object, data: bytes | None) -> bytes | None:
        """What is kept of a key or value."""
        if data is None or len(data) <= MAX_VALUE_BYTES or topic in self.whole:
            return data
        return Cut.of(data, MAX_VALUE_BYTES + 1)
