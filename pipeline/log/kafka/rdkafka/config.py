"""Configuration of librdkafka, and the LogErrors that its errors become."""

import contextlib
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from kafka import errors

from pipeline.log.kafka.batches import MAX_UNPACKED
from pipeline.log.kafka.client import meaning
from pipeline.log.kafka.cluster import Cluster
from pipeline.log.settings import HEARTBEAT_S, KafkaSettings
from tidecast.errors import LogError

logger = logging.getLogger("librdkafka")
Result = TypeVar("Result")

CLIENT: dict[str, Any] = {
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 1000,
    "retry.backoff.ms": 20,
    "topic.metadata.refresh.interval.ms": 30_000,
    "allow.auto.create.topics": False,
    # After a lost network the client would take up new connections to the cluster, and never find a group's coordinator
    # again: librdkafka 2.16.0, rd_kafka_coord_req_fsm waits for the connection that it gave up. A restart finds others.
    "metadata.recovery.strategy": "none",
    "socket.nagle.disable": True,
    "log.connection.close": False,
    "enable.metrics.push": False,
}
CONSUMER: dict[str, Any] = CLIENT | {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,  # the only sign of a position behind aborted records and markers
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "check.crcs": True,
    "partition.assignment.strategy": "cooperative-sticky",
    "heartbeat.interval.ms": int(HEARTBEAT_S * 1000),
    "fetch.wait.max.ms": 100,  # a fetch under way delays a partition that was just sought by this long
    "fetch.error.backoff.ms": 50,
    "fetch.queue.backoff.ms": 5,
    "queued.max.messages.kbytes": 16 << 10,
    "fetch.max.bytes": 16 << 20,
    "receive.message.max.bytes": MAX_UNPACKED,  # of a response, and of a batch that was packed with zstd
}
READER: dict[str, Any] = CONSUMER | {"fetch.wait.max.ms": 20, "group.id": "tidecast"}
"""The client wants a group's name, even to read outside of any."""
PRODUCER: dict[str, Any] = CLIENT | {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",  # as Kafka's own clients choose by the key
    "delivery.report.only.error": True,
    "linger.ms": 0.2,  # a record does not wait; 5 ms give a twelfth more throughput
    "message.max.bytes": 16 << 20,
    "queue.buffering.max.kbytes": 64 << 10,
}


def connection(kafka: KafkaSettings, cluster: Cluster) -> dict[str, Any]:
    """Connection settings, for every client."""
    settings = {
        "bootstrap.servers": ",".join(cluster.servers),
        "socket.timeout.ms": milliseconds(kafka.request_s),
        "socket.connection.setup.timeout.ms": max(1000, milliseconds(kafka.request_s)),
        "security.protocol": kafka.security_protocol,
        "sasl.mechanisms": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password,
        "ssl.certificate.location": kafka.ssl_certfile,
        "ssl.key.location": kafka.ssl_keyfile,
        "ssl.key.password": kafka.ssl_key_password,
    }
    if kafka.security_protocol.endswith("SSL"):
        # The library brings an OpenSSL of its own, which does not know where this system's certificates are.
        settings["ssl.ca.location"] = kafka.ssl_cafile or ssl.get_default_verify_paths().cafile or "probe"
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)  # what matters is raised
    return {name: value for name, value in settings.items() if value is not None} | {"logger": logger}


def consumer(kafka: KafkaSettings, cluster: Cluster) -> dict[str, Any]:
    """Settings of a consumer in a group."""
    session = milliseconds(kafka.session_s)
    longest = {"session.timeout.ms": session, "max.poll.interval.ms": max(300_000, session)}
    return CONSUMER | connection(kafka, cluster) | longest


def reader(kafka: KafkaSettings, cluster: Cluster) -> dict[str, Any]:
    """Settings of a consumer without a group."""
    return READER | connection(kafka, cluster)


def producer(kafka: KafkaSettings, cluster: Cluster, transactional_id: str | None) -> dict[str, Any]:
    """Settings of a producer."""
    settings = PRODUCER | connection(kafka, cluster) | {"request.timeout.ms": milliseconds(kafka.request_s)}
    if transactional_id is None:
        # A refused record stops the producer, so that those behind it are not written before it is replaced.
        own: dict[str, Any] = {"client.id": "tidecast", "enable.gapless.guarantee": True}
        return settings | own | {"message.timeout.ms": milliseconds(kafka.delivery_s)}
    return settings | {
        "client.id": transactional_id,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": milliseconds(kafka.transaction_s),
        "message.timeout.ms": milliseconds(min(kafka.delivery_s, kafka.transaction_s)),
    }


def milliseconds(seconds: float) -> int:
    """At least one."""
    return max(1, round(seconds * 1000))


CLOSE_S = 2.0
"""Seconds until a client that does not close is left to itself."""
OWN: dict[int, type[errors.KafkaError]] = {
    KafkaError._ALL_BROKERS_DOWN: errors.NodeNotReadyError,
    KafkaError._ASSIGNMENT_LOST: errors.CommitFailedError,
    KafkaError._AUTHENTICATION: errors.SaslAuthenticationFailedError,
    KafkaError._AUTO_OFFSET_RESET: errors.OffsetOutOfRangeError,
    KafkaError._FENCED: errors.ProducerFencedError,
    KafkaError._MAX_POLL_EXCEEDED: errors.CommitFailedError,
    KafkaError._MSG_TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._TIMED_OUT_QUEUE: errors.KafkaTimeoutError,
    KafkaError._TRANSPORT: errors.NodeNotReadyError,
    KafkaError._UNKNOWN_PARTITION: errors.UnknownTopicOrPartitionError,
    KafkaError._UNKNOWN_TOPIC: errors.UnknownTopicOrPartitionError,
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER: errors.UnknownTopicIdError,  # what is left of the topic before it
    KafkaError._WAIT_COORD: errors.CoordinatorNotAvailableError,
}
"""What the library's own errors are called by the other client; those of the protocol have the same numbers."""


def same_error(error: KafkaError) -> errors.KafkaError:
    """An error as the other client has it."""
    code = error.code()
    kind = OWN.get(code) or (errors.for_code(code) if code > 0 else errors.KafkaError)
    return kind(error.str() if kind is not errors.KafkaError else f"{error.name()}: {error.str()}")


UNTOLD = (KafkaError._FATAL, KafkaError._STATE, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
"""Errors that come after a client's end."""


def is_untold(error: KafkaException | KafkaError | errors.KafkaError) -> bool:
    """Whether the error does not say what went wrong, as something before it did."""
    own = error.args[0] if isinstance(error, KafkaException) else error
    return isinstance(own, KafkaError) and own.code() in UNTOLD


def cause(error: KafkaException | KafkaError | errors.KafkaError, fatal: KafkaException | None) -> errors.KafkaError:
    """An error as the other client has it; that for which the client ended, `fatal`, for those that came of it."""
    told = fatal if fatal is not None and is_untold(error) else error
    own = told.args[0] if isinstance(told, KafkaException) else told
    return same_error(own) if isinstance(own, KafkaError) else own


def log_error(error: KafkaException | KafkaError, doing: str) -> LogError:
    """An error as a LogError; `doing` says what was being done."""
    return meaning(same_error(error.args[0] if isinstance(error, KafkaException) else error), doing)


def started(call: Callable[[], Result]) -> Future[Result]:
    """The outcome of a call on a thread of its own, which does not keep the process."""
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="tidecast-librdkafka", daemon=True).start()
    return outcome


def within(call: Callable[[], Result], seconds: float) -> Result:
    """The result of a call without a timeout of its own, or with one that it may ignore.

    Raises KafkaException after `seconds`: the thread that it runs on is left to itself.
    """
    outcome = started(call)
    try:
        return outcome.result(seconds)
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no answer within {seconds:g} s")) from None


def bounded(call: Callable[[], object], seconds: float) -> None:
    """Run a call that may fail, for up to `seconds`."""
    with contextlib.suppress(KafkaException, LogError):
        within(call, seconds)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise the client's errors as LogErrors; `doing` says what was being done."""
    try:
        yield
    except KafkaException as error:
        raise log_error(error, doing) from error
