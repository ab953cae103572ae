"""A Kafka producer that checks every acknowledgement, and limits records in flight and the duration of calls."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from kafka import KafkaProducer, errors

from pipeline import failpoint
from pipeline.log import Commit, Consumer
from pipeline.log.kafka.client import meaning, producer, translated
from pipeline.log.kafka.consumer import KafkaGroupConsumer
from pipeline.log.settings import KafkaSettings
from tidecast.errors import LogError

MAX_RECORDS_IN_FLIGHT = 20_000
MAX_BYTES_IN_FLIGHT = 64 << 20


class KafkaLogProducer:
    """An idempotent producer. After a failure it is unusable: every call raises that failure again.

    `partitions` looks up a topic's number of partitions: the client would create a missing topic.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        config: Mapping[str, Any],
        transactional_id: str | None,
        partitions: Callable[[str], int],
    ) -> None:
        self._kafka = kafka
        self._doing = f"writing as {config['client_id']}"
        self._partitions = partitions
        self._topics: set[str] = set()
        self._pending: list[Any] = []
        self._bytes = 0
        self._failure: LogError | None = None
        self._in_transaction = False
        with translated(self._doing):
            self._producer = KafkaProducer(**producer(kafka), **config, transactional_id=transactional_id)
            if transactional_id is not None:
                self._init_transactions()

    def _init_transactions(self) -> None:
        try:
            self._producer.init_transactions()
        except errors.KafkaError:
            self.close()  # its thread would go on retrying
            raise

    def send(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Queue one record. Partition None: chosen by the key. Blocks while too much is in flight."""
        if topic not in self._topics:
            self._partitions(topic)
            self._topics.add(topic)
        try:
            self._pending.append(self._producer.send(topic, value, key, list(headers), partition, timestamp))
        except errors.KafkaError as error:
            raise self._failed(error) from error
        self._bytes += len(value or b"")
        if len(self._pending) >= MAX_RECORDS_IN_FLIGHT or self._bytes >= MAX_BYTES_IN_FLIGHT:
            self._await_acks(len(self._pending) // 2 + 1)

    def flush(self) -> None:
        """Return when all records sent are acknowledged; raise the first failure of any."""
        with self._guarded():
            self._producer.flush(self._kafka.delivery_s)
        self._await_acks(len(self._pending))

    def _await_acks(self, count: int) -> None:
        with self._guarded():
            for future in self._pending[:count]:
                if not future.is_done or future.exception is not None:
                    future.get(self._kafka.delivery_s)
        self._bytes -= self._bytes * count // max(1, len(self._pending))
        del self._pending[:count]

    def begin(self) -> None:
        """Open a transaction."""
        with self._guarded():
            self._producer.begin_transaction()
        self._in_transaction = True

    def commit(self, offsets: Mapping[int, Commit], consumer: Consumer) -> None:
        """Flush, then commit records and the consumer's offsets atomically, under the generation of its last poll."""
        assert isinstance(consumer, KafkaGroupConsumer)
        self.flush()
        if offsets:
            positions, generation = consumer.positions(offsets), consumer.generation(offsets)
            self._bounded(
                lambda: self._producer.send_offsets_to_transaction(positions, generation), self._kafka.delivery_s
            )
        failpoint.reached("offsets-sent")
        self._bounded(self._producer.commit_transaction, self._kafka.delivery_s)
        self._in_transaction = False

    def abort(self) -> None:
        """Abort the open transaction; possible after most failures too."""
        self._in_transaction = False
        self._pending.clear()
        self._bytes = 0
        self._bounded(self._producer.abort_transaction, self._kafka.request_s)

    def close(self) -> None:
        """Drop what is not acknowledged, and close."""
        if self._in_transaction:
            with contextlib.suppress(LogError):  # the broker aborts it later
                self.abort()
        try:
            self._producer.close(timeout=1)
        except errors.KafkaTimeoutError:
            self._producer._sender.force_close()  # close() cannot drop unsent records
            self._producer.close(timeout=1)

    def _bounded(self, call: Callable[[], None], seconds: float) -> None:
        """Run a call without a timeout of its own, on a thread that is abandoned after `seconds`."""
        outcome: Future[None] = Future()

        def run() -> None:
            try:
                call()
                outcome.set_result(None)
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=run, name="tidecast-transaction", daemon=True).start()
        try:
            outcome.result(seconds)
        except TimeoutError as error:
            raise self._failed(errors.KafkaTimeoutError(f"no answer in {seconds:g} s")) from error
        except errors.KafkaError as error:
            raise self._failed(error) from error

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except errors.KafkaError as error:
            raise self._failed(error) from error

    def _failed(self, error: errors.KafkaError) -> LogError:
        # After a failure the client reports only that there was one; its transaction manager has the cause.
        self._failure = meaning(self._producer._transaction_manager.last_error or error, self._doing)
        return self._failure
