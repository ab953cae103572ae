"""How Tidecast sets up kafka-python, what its errors mean here, and what is mended in it: how batches are read."""

import contextlib
import gzip
import io
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import kafka.record.memory_records
from kafka import codec, errors
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint
from kafka.serializer import Deserializer

from pipeline.log import MAX_VALUE_BYTES, Truncated, Undecodable
from pipeline.log.settings import HEARTBEAT_S, KafkaSettings
from tidecast.errors import ConsumerFenced, LogError, LogUnavailable, NotAuthorized, UnknownTopic

MAX_UNPACKED = 32 << 20
"""Bytes that a compressed batch may unpack to; batches of some 1 MiB, as brokers take them, make 20 at the most."""

CLIENT: dict[str, Any] = {
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
    "heartbeat_interval_ms": int(HEARTBEAT_S * 1000),
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
}


def connection(kafka: KafkaSettings) -> dict[str, Any]:
    """What each of the clients is told of the connection."""
    return {
        "bootstrap_timeout_ms": _ms(kafka.request_s),
        "request_timeout_ms": _ms(kafka.request_s),
        "security_protocol": kafka.security_protocol,
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password,
        "ssl_cafile": kafka.ssl_cafile,
        "ssl_certfile": kafka.ssl_certfile,
        "ssl_keyfile": kafka.ssl_keyfile,
        "ssl_password": kafka.ssl_key_password or "",
    }


def admin(kafka: KafkaSettings) -> dict[str, Any]:
    """What an admin client is made of."""
    return CLIENT | connection(kafka)


def consumer(kafka: KafkaSettings) -> dict[str, Any]:
    """What a group's member is made of."""
    return CONSUMER | connection(kafka) | {"session_timeout_ms": _ms(kafka.session_s)}


def reader(kafka: KafkaSettings) -> dict[str, Any]:
    """What a consumer without a group is made of."""
    return READER | connection(kafka)


def producer(kafka: KafkaSettings) -> dict[str, Any]:
    """What a producer is made of."""
    return (
        PRODUCER
        | connection(kafka)
        | {
            "max_block_ms": _ms(kafka.stall_s),
            "delivery_timeout_ms": _ms(kafka.delivery_s) + PRODUCER["linger_ms"],
            "transaction_timeout_ms": _ms(kafka.transaction_s),
        }
    )


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


MEANINGS: tuple[tuple[type[LogError], tuple[type[Exception], ...]], ...] = (
    (
        ConsumerFenced,
        (
            errors.CommitFailedError,
            errors.FencedInstanceIdError,
            errors.IllegalGenerationError,
            errors.InvalidProducerEpochError,
            errors.ProducerFencedError,
            errors.UnknownMemberIdError,
        ),
    ),
    (
        NotAuthorized,
        (errors.AuthorizationError, errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError),
    ),
    (UnknownTopic, (errors.UnknownTopicOrPartitionError,)),
    (LogUnavailable, (errors.RetriableError, errors.RebalanceInProgressError, errors.OffsetOutOfRangeError)),
)


class _Discretion(logging.Filter):
    """Leaves out of the client's DEBUG lines what holds a password or proves one: its settings, SASL, bytes sent."""

    LOGGERS = ("kafka.admin.client", "kafka.net.connection", "kafka.protocol.parser")

    def filter(self, record: logging.LogRecord) -> bool:
        """Any record passes, with its arguments cleaned."""
        given = record.args if isinstance(record.args, tuple) else (record.args,)
        record.args = tuple(self._cleaned(argument) for argument in given) if record.args else record.args
        return True

    def _cleaned(self, argument: object) -> object:
        if isinstance(argument, bytes | bytearray | memoryview):
            return f"<{len(argument)} bytes>"
        name = type(argument).__name__
        return f"<{name}>" if isinstance(argument, Mapping) or name.startswith("Sasl") else argument


for _name in _Discretion.LOGGERS:
    logging.getLogger(_name).addFilter(_Discretion())


REFUSALS = ("AuthorizationFailedError", "CERTIFICATE_VERIFY_FAILED")
UNANSWERED = "Could not execute transactional request"
"""What is left in the text of an error by which the client says less."""


def meaning(error: BaseException, doing: str) -> LogError:
    """The LogError that a client's error is, with what was being done."""
    kind = next((kind for kind, causes in MEANINGS if isinstance(error, causes)), LogError)
    if any(refusal in str(error) for refusal in REFUSALS):
        kind = NotAuthorized
    elif kind is LogError and UNANSWERED in str(error):
        kind = LogUnavailable
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


class TruncatingDeserializer(Deserializer):  # type: ignore[misc]
    """Cuts keys and values that are too long for an event: packed, a poll's records may be of any size.

    One byte more than allowed is left, so that they are seen to be too long. Topics in `whole` are left alone.
    """

    def __init__(self) -> None:
        self.whole: set[str] = set()

    def deserialize(self, topic: str, _: object, data: bytes | None) -> bytes | None:
        """What is kept of a key or value."""
        if data is None or len(data) <= MAX_VALUE_BYTES or topic in self.whole:
            return data
        return Truncated.of(data, MAX_VALUE_BYTES + 1)
