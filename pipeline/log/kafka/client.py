"""Configuration of kafka-python, the LogErrors that its errors become, and fixes to how it writes."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import kafka.producer.kafka
from kafka import errors
from kafka.cluster import ClusterMetadata
from kafka.net.compat import KafkaNetClient
from kafka.producer.transaction_manager import TransactionManager, TransactionState

from pipeline.log import Sent
from pipeline.log.kafka.reasons import reason
from pipeline.log.settings import HEARTBEAT_S, KafkaSettings
from tidecast.errors import ConsumerFenced, LogError, LogUnavailable, NotAuthorized, UnknownTopic

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
    "fetch_max_wait_ms": 100,  # a fetch under way delays a partition that was just sought by this long
}
READER: dict[str, Any] = CONSUMER | {"fetch_max_wait_ms": 20}


class _ProducerClient(KafkaNetClient):  # type: ignore[misc]
    """Says that a coordinator can't be reached, where the client raises: it drops the request then, and waits for it.

    kafka-python 3.0.12, Sender._maybe_send_pending_request: only what had no node is queued again.
    """

    def await_ready(self, node_id: Any, timeout_ms: float = 30_000) -> bool:
        """Whether the node is connected, waiting for it up to `timeout_ms`."""
        try:
            return bool(super().await_ready(node_id, timeout_ms))
        except errors.KafkaConnectionError:
            self.poll(timeout_ms=CLIENT["retry_backoff_ms"])  # the next attempt follows at once
            return False


PRODUCER: dict[str, Any] = CLIENT | {
    "kafka_client": _ProducerClient,
    "metrics_enabled": False,
    "acks": "all",
    "enable_idempotence": True,
    # One batch per partition is in flight at a time, so throughput depends on its size.
    "batch_size": 256 << 10,
    "linger_ms": 5,
    "max_request_size": 16 << 20,
}


def connection(kafka: KafkaSettings) -> dict[str, Any]:
    """Connection settings, for every client."""
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
    """Settings of an admin client."""
    return CLIENT | connection(kafka)


def consumer(kafka: KafkaSettings) -> dict[str, Any]:
    """Settings of a consumer in a group."""
    return CONSUMER | connection(kafka) | {"session_timeout_ms": _ms(kafka.session_s)}


def reader(kafka: KafkaSettings) -> dict[str, Any]:
    """Settings of a consumer without a group."""
    return READER | connection(kafka)


def producer(kafka: KafkaSettings) -> dict[str, Any]:
    """Settings of a producer."""
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


def metadata_text(metadata: str | None) -> str:
    """A commit's metadata. librdkafka ends it with a zero byte."""
    return (metadata or "").removesuffix("\0")


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


MAX_REFUSALS = 50
"""How often a record is replaced until that counts as a failure: it is not the record, then, but the topic."""
REFUSALS = (
    errors.InvalidTimestampError,
    errors.InvalidRecordError,
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
)
"""Errors of a record itself, which any further attempt would meet again."""


class _SecretFilter(logging.Filter):
    """Removes from the client's DEBUG lines what may contain credentials: its settings, SASL messages, bytes sent."""

    LOGGERS = ("kafka.admin.client", "kafka.net.connection", "kafka.protocol.parser")

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record, with its arguments redacted."""
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        record.args = tuple(self._redacted(argument) for argument in arguments) if record.args else record.args
        return True

    def _redacted(self, argument: object) -> object:
        if isinstance(argument, bytes | bytearray | memoryview):
            return f"<{len(argument)} bytes>"
        name = type(argument).__name__
        return f"<{name}>" if isinstance(argument, Mapping) or name.startswith("Sasl") else argument


for _name in _SecretFilter.LOGGERS:
    logging.getLogger(_name).addFilter(_SecretFilter())


DENIALS = ("AuthorizationFailedError", "CERTIFICATE_VERIFY_FAILED")
UNANSWERED = "Could not execute transactional request"
"""Parts of the texts of errors whose class does not tell the cause."""


def meaning(error: BaseException, doing: str) -> LogError:
    """A client's error as a LogError; `doing` says what was being done."""
    kind = next((kind for kind, causes in MEANINGS if isinstance(error, causes)), LogError)
    if any(denial in str(error) for denial in DENIALS):
        kind = NotAuthorized
    elif kind is LogError and UNANSWERED in str(error):
        kind = LogUnavailable
    return kind(f"{doing}: {reason(error)}")


def destination(sent: Sent | None) -> str:
    """Where a record goes, and which one of the input it came of."""
    if sent is None:
        return ""
    cause = sent.cause
    origin = "" if cause is None else f" what came of {cause.topic}/{cause.partition} at offset {cause.offset}"
    return f", to {sent.topic}/{sent.partition}{origin}"


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise the client's errors as LogErrors; `doing` says what was being done."""
    try:
        yield
    except errors.KafkaError as error:
        raise meaning(error, doing) from error


# Refreshing metadata would bring a deleted topic back, empty. The clients have such an option, which has no effect.
ClusterMetadata.DEFAULT_CONFIG["allow_auto_create_topics"] = False


class _PatientTransactionManager(TransactionManager):  # type: ignore[misc]
    """Waits for what is in flight when a record is refused, which the client would give up: it might be written."""

    def classify_batch_error(self, error: BaseException, batch: Any, log_start_offset: int = -1) -> Any:
        """What the client does about a batch's error."""
        kind = super().classify_batch_error(error, batch, log_start_offset)
        if kind == self.ERROR_CLASS_FATAL and isinstance(error, REFUSALS):
            # As in a transaction: nothing more is sent, and nothing that was sent is given up.
            self._current_state, self._last_error = TransactionState.ABORTABLE_ERROR, error
            return self.ERROR_CLASS_RETRIABLE
        return kind


kafka.producer.kafka.TransactionManager = _PatientTransactionManager
