"""A Kafka producer that checks every acknowledgement, and limits records in flight and the duration of calls."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from kafka import KafkaProducer, errors
from msgspec.structs import replace

from pipeline import failpoint
from pipeline.log import Commit, Consumer, Record, Refusal, Sent
from pipeline.log.kafka.client import MAX_REFUSALS, REFUSALS, destination, meaning, producer, translated
from pipeline.log.kafka.consumer import KafkaGroupConsumer
from pipeline.log.settings import KafkaSettings
from tidecast.errors import LogError

MAX_RECORDS_IN_FLIGHT = 20_000
MAX_BYTES_IN_FLIGHT = 64 << 20


def _error(future: Any) -> BaseException | None:
    """Why a record is not written, once that is known."""
    return future.exception if future.is_done else None


def _is_refused(future: Any) -> bool:
    """Whether the broker refused this record.

    Those behind it have its error too, but in batches that the client gave up, which have the offset -1.
    """
    if not isinstance(_error(future), REFUSALS):
        return False
    offset, _, _ = future._produce_future.value
    return offset is None


class KafkaLogProducer:
    """An idempotent producer. After a failure it is unusable: every call raises that failure again.

    A record that the broker refuses makes the client unusable as well: a new one takes its place, with a new
    transaction if one was open, and what was not written is sent again.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        config: Mapping[str, Any],
        transactional_id: str | None,
        partitions: Callable[[str], int],
    ) -> None:
        """`partitions` looks up a topic's number of partitions: the client would wait for a missing one."""
        self.on_refusal: Callable[[Sent, Refusal], Sent] | None = None
        self._kafka, self._config, self._transactional_id = kafka, config, transactional_id
        self._doing = f"writing as {config['client_id']}"
        self._partitions = partitions
        self._futures: list[Any] = []
        self._pending: list[Sent] = []
        """What is not acknowledged yet, each beside its future."""
        self._bytes = 0
        self._sent: list[Sent] = []
        """What was sent in the open transaction and may be replaced."""
        self._failure: LogError | None = None
        self._in_transaction = False
        self._connect()

    def _connect(self) -> None:
        with translated(self._doing):
            settings = {**producer(self._kafka), **self._config, "transactional_id": self._transactional_id}
            self._producer = KafkaProducer(**settings)
            if self._transactional_id is not None:
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
        cause: Record | None = None,
    ) -> None:
        """Queue one record. Partition None: chosen by the key. Blocks while too much is in flight."""
        if topic not in self._producer._metadata._partitions:  # the client would wait for one that was deleted
            self._partitions(topic)
        self._send(Sent(topic, partition, key, value, timestamp, headers, cause, 0))
        if len(self._pending) >= MAX_RECORDS_IN_FLIGHT or self._bytes >= MAX_BYTES_IN_FLIGHT:
            self._await_acks(len(self._pending) // 2 + 1)

    def _send(self, sent: Sent) -> None:
        value = sent.value
        try:
            future = self._producer.send(
                sent.topic, value, sent.key, list(sent.headers), sent.partition, sent.timestamp
            )
        except errors.MessageSizeTooLargeError as error:  # more than the client sends at once
            self._send(self._replacement(sent, error))
            return
        except errors.KafkaError as error:
            self._flush()  # the client knows of a refusal a little earlier than the refused record
            if not any(map(_is_refused, self._futures)):
                raise self._failed(error, sent) from error
            self._send_again()
            self._send(sent)
            return
        self._futures.append(future)
        self._pending.append(sent)
        if value is not None:
            self._bytes += len(value)
        if self._in_transaction and sent.cause is not None:
            self._sent.append(sent)

    def flush(self) -> None:
        """Return when all records sent are acknowledged; raise the first failure of any."""
        self._flush()
        while not self._await_acks(len(self._pending)):
            self._flush()

    def _flush(self) -> None:
        deadline = time.monotonic() + self._kafka.delivery_s
        with self._guarded():
            while True:
                try:
                    self._producer.flush(self._kafka.delivery_s)
                    return
                except errors.UnknownError:  # what the client makes of a batch that it has split meanwhile
                    if time.monotonic() > deadline:
                        raise

    def _await_acks(self, count: int) -> bool:
        """Wait for the first `count` acknowledgements; False if records were sent again, and so are to be awaited."""
        if self._failure is not None:
            raise self._failure
        for number, future in enumerate(self._futures[:count]):
            if future.is_done and future.exception is None:
                continue
            try:
                future.get(self._kafka.delivery_s)
            except errors.KafkaError as error:
                self._flush()  # so that all that is in flight has an outcome
                if not any(map(_is_refused, self._futures)):
                    raise self._failed(error, self._pending[number]) from error
                self._send_again()
                return False
        self._bytes -= self._bytes * count // max(1, len(self._pending))
        del self._futures[:count], self._pending[:count]
        return True

    def _send_again(self) -> None:
        """Send what was not written again, with replacements for the records that the broker refuses."""
        self._flush()
        pending = list(zip(self._futures, self._pending, strict=True))
        refused = {id(sent): _error(future) for future, sent in pending if _is_refused(future)}
        lost = [sent for future, sent in pending if _error(future) is not None]
        for sent in lost:
            if (error := refused.get(id(sent))) is not None:
                self._check_replaceable(sent, error)
        in_transaction = self._in_transaction
        self._forget_pending()
        if in_transaction:
            lost = self._sent
        self.close()  # also after an abort the client would go on with sequence numbers that the broker has not seen
        if self._failure is not None:  # it could not abort, as after another process has taken over its id
            raise self._failure
        self._connect()
        if in_transaction:
            self.begin()
        for sent in lost:
            error = refused.get(id(sent))
            self._send(sent if error is None else self._replacement(sent, error))

    def _forget_pending(self) -> None:
        self._futures, self._pending, self._bytes = [], [], 0

    def _check_replaceable(self, sent: Sent, error: BaseException) -> None:
        if self.on_refusal is None or sent.cause is None or sent.refusals >= MAX_REFUSALS:
            raise self._failed(error, sent) from error

    def _replacement(self, sent: Sent, error: BaseException) -> Sent:
        self._check_replaceable(sent, error)
        assert self.on_refusal is not None
        why = ": ".join(filter(None, (type(error).__name__.removesuffix("Error"), *error.args)))
        too_large = isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError)
        return replace(self.on_refusal(sent, Refusal(why, too_large)), refusals=sent.refusals + 1)

    def begin(self) -> None:
        """Open a transaction."""
        with self._guarded():
            self._producer.begin_transaction()
        self._in_transaction, self._sent = True, []

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
        self._in_transaction, self._sent = False, []

    def abort(self) -> None:
        """Abort the open transaction; possible after most failures too."""
        self._in_transaction, self._sent = False, []
        self._forget_pending()
        self._bounded(self._producer.abort_transaction, self._kafka.request_s)

    def renew(self) -> None:
        """Connect anew: a client goes on with the numbers of a topic's records when another has its name."""
        if self._failure is not None:
            raise self._failure
        self.close()
        self._failure = None
        self._forget_pending()
        self._connect()

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

    def _failed(self, error: BaseException, sent: Sent | None = None) -> LogError:
        # After a failure the client reports only that there was one; its transaction manager has the cause.
        self._failure = meaning(
            self._producer._transaction_manager.last_error or error, f"{self._doing}{destination(sent)}"
        )
        return self._failure
