"""How Tidecast sets up kafka-python, what its errors mean here, and the one thing mended in it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import kafka.record.memory_records
from kafka import errors
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

from pipeline.log import LogError, LogUnavailable, MembershipLost, NotPermitted, UnknownTopic

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
    (LogUnavailable, (errors.RetriableError, errors.RebalanceInProgressError, errors.OffsetOutOfRangeError)),
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


class _TolerantBatch(DefaultRecordBatch):  # type: ignore[misc]
    """Reads records with header keys that are not UTF-8, the offending bytes replaced by "?".

    The client raises on such a record, spins in the next poll, and cannot seek past it within its batch.
    """

    __slots__ = ()
    ASCII = bytes(range(128)) + b"?" * 128

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._mend_header_keys()
            return super()._read_msg()

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
