"""A producer by librdkafka, which tells of failures only, and limits what is in flight and the duration of calls."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as Rdkafka
from kafka import errors

from pipeline import failpoint
from pipeline.log import Commit, Consumer, Record, Refusal, Sent
from pipeline.log.kafka.client import destination, meaning
from pipeline.log.kafka.clients import Cluster
from pipeline.log.kafka.rdkafka.config import CLOSE_S, bounded, cause, is_untold, producer, within
from pipeline.log.kafka.rdkafka.consumer import AGAIN, REBALANCING, RdkafkaConsumer
from pipeline.log.kafka.rdkafka.refusals import (
    TOO_LARGE,
    Given,
    Lost,
    refusal,
    refused,
    transaction_error,
    unmendable,
)
from pipeline.log.settings import KafkaSettings
from tidecast.errors import LogError

SERVE = 1000
"""Records after which the client is asked what became of those before."""
MAX_REFUSALS = 50
"""How often what was lost is sent again until that counts as a failure: it is not one record, then, but the topic."""
MAX_REBALANCES = 20
"""How often a transaction is made again because its offsets met a rebalance."""
BATCH_BYTES = 1_000_000


class RdkafkaProducer:
    """An idempotent producer. After a failure it is unusable: every call raises that failure again.

    The client fails a whole batch for a record that the broker refuses, and then sends nothing more. A new one takes
    its place, with a new transaction if one was open, and what was not written is sent again: if it isn't known yet
    which record is refused, one a batch.
    """

    def __init__(self, kafka: KafkaSettings, cluster: Cluster, transactional_id: str | None) -> None:
        self.on_refusal: Callable[[Sent, Refusal], Sent] | None = None
        self._kafka, self._cluster, self._transactional_id = kafka, cluster, transactional_id
        self._doing = f"writing as {transactional_id or 'tidecast'}"
        self._topics: set[str] = set()
        self._numbers = count(1)
        self._lost: list[Lost] = []
        self._sent: list[Given] = []
        """What was sent in the open transaction."""
        self._batch_bytes, self._alone = BATCH_BYTES, False
        self._refusals = self._replaced = 0
        self._fatal: KafkaException | None = None
        self._failure: LogError | None = None
        self._in_transaction = False
        self._client: list[Rdkafka] = []
        """The last one to refer to it, which ends it."""
        self._connect()

    def _connect(self) -> None:
        self._lost, self._fatal = [], None
        settings = producer(self._kafka, self._cluster, self._transactional_id)
        try:
            with self._guarded():
                self._producer = Rdkafka(settings | {"batch.size": 1 if self._alone else self._batch_bytes})
                self._client.append(self._producer)
                for topic in self._topics:
                    self._find(topic)
                if self._transactional_id is not None:
                    self._producer.init_transactions(self._kafka.stall_s)
        except LogError:
            self._drop()
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
        """Queue one record. Partition None: chosen by the key. Blocks while too much is in flight.

        The first millisecond of 1970 is written as the second: the client takes it for none.
        """
        if topic not in self._topics:
            self._cluster.partitions(topic)
            self._topics.add(topic)
            with self._guarded():
                self._find(topic)
        number = next(self._numbers)
        self._give(Given(topic, partition, key, value, timestamp, headers, cause, number, self._lost))
        if number % SERVE == 0:
            self._serve(0)

    def _find(self, topic: str) -> None:
        """Connect for it now: by itself the client looks twice a second whether it is connected."""
        self._producer.list_topics(topic, self._kafka.request_s)

    def _give(self, given: Given) -> None:
        if self._failure is not None:
            raise self._failure
        where = -1 if given.partition is None else given.partition
        time_ms = given.timestamp or (0 if given.timestamp is None else 1)
        headers = list(given.headers) if given.headers else None
        try:
            self._producer.produce(given.topic, given.value, given.key, where, given, None, time_ms, headers)
        except BufferError:
            self._make_room(given)
        except KafkaException as error:
            self._not_taken(given, error.args[0])
        else:
            if self._in_transaction:
                self._sent.append(given)

    def _make_room(self, given: Given) -> None:
        """Send it once the client has taken some of what is before it to the broker."""
        before, deadline = len(self._producer), time.monotonic() + self._kafka.stall_s
        while len(self._producer) >= before:
            self._serve(0.05)
            if time.monotonic() > deadline:
                raise self._failed(errors.KafkaTimeoutError(f"{before:,} records wait to be written"), given)
        self._give(given)

    def _not_taken(self, given: Given, error: KafkaError) -> None:
        if error.code() in TOO_LARGE:  # more than the client sends at once
            self._give(self._replacement(given, error))
            return
        self._settle()  # it takes nothing more since another record was refused
        if not self._lost:
            raise self._failed(error, given)
        self._send_again()
        self._give(self._renewed(given))

    def _renewed(self, sent: Sent) -> Given:
        fields = (sent.topic, sent.partition, sent.key, sent.value, sent.timestamp, sent.headers, sent.cause)
        return Given(*fields, next(self._numbers), self._lost)

    def _serve(self, seconds: float) -> None:
        try:
            self._producer.poll(seconds)
        except KafkaException as error:  # it can go on no more, and says why only once
            self._fatal = error

    def flush(self) -> None:
        """Return when all records sent are acknowledged; raise the first failure of any."""
        if self._failure is not None:
            raise self._failure
        self._settle()
        while self._lost:
            self._send_again()
            self._settle()
        if self._fatal is not None:
            raise self._failed(self._fatal)
        self._refusals = 0
        if self._alone and not self._in_transaction:
            self._batch_again()

    def _settle(self) -> None:
        """Wait until it is known what became of all records."""
        deadline = time.monotonic() + self._kafka.delivery_s + 1
        while True:
            try:
                left = self._producer.flush(0.1)
            except KafkaException as error:
                self._fatal = error
                continue
            if not left:
                return
            if self._lost or self._fatal:  # those behind a refused record would be kept until their time is over
                self._producer.purge(in_flight=False)
            if time.monotonic() > deadline:
                raise self._failed(errors.KafkaTimeoutError(f"{left:,} records are not acknowledged"))

    def _send_again(self) -> None:
        """Send what was not written again, with replacements for the records that the broker refuses."""
        lost = sorted(self._lost, key=lambda each: each.given.number)
        if (failed := unmendable(lost, in_transaction=self._in_transaction)) is not None:
            raise self._failed(failed.error, failed.given)
        self._refusals += 1
        errors_of = refused(lost, alone=self._alone)
        for given, error, _ in lost:
            if given.number in errors_of:
                self._check_replaceable(given, error)
        again = self._sent if self._in_transaction else [each.given for each in lost]
        self._begin_anew(alone=self._alone or not errors_of)
        for given in again:
            why = errors_of.get(given.number)
            self._give(self._renewed(given) if why is None else self._replacement(given, why))

    def _begin_anew(self, *, alone: bool) -> None:
        """With a new client, and a new transaction if one is open."""
        in_transaction = self._in_transaction
        self.close()
        if self._failure is not None:  # it could not abort, as after another process has taken over its id
            raise self._failure
        self._alone = alone
        self._connect()
        if in_transaction:
            self._begin()

    def _batch_again(self) -> None:
        """Send many records a batch after each went alone."""
        if not self._replaced:  # no record was too large: only all of them together
            self._batch_bytes = max(1, self._batch_bytes // 16)
        self._replaced = 0
        self._begin_anew(alone=False)

    def _check_replaceable(self, sent: Sent, error: KafkaError) -> None:
        if self.on_refusal is None or sent.cause is None or self._refusals > MAX_REFUSALS:
            raise self._failed(error, sent)

    def _replacement(self, sent: Sent, error: KafkaError) -> Given:
        self._check_replaceable(sent, error)
        assert self.on_refusal is not None
        self._replaced += 1
        return self._renewed(self.on_refusal(sent, refusal(error)))

    def begin(self) -> None:
        """Open a transaction."""
        if self._alone:
            self._batch_again()
        self._begin()

    def _begin(self) -> None:
        with self._guarded():
            self._producer.begin_transaction()
        self._in_transaction, self._sent = True, []

    def commit(self, offsets: Mapping[int, Commit], consumer: Consumer) -> None:
        """Flush, then commit records and the consumer's offsets atomically, under the generation that it has."""
        assert isinstance(consumer, RdkafkaConsumer)
        self.flush()
        for attempt in range(MAX_REBALANCES):
            if not offsets or self._send_offsets(offsets, consumer, last=attempt == MAX_REBALANCES - 1):
                break
            sent = self._sent
            self.abort()
            time.sleep(AGAIN)
            self._begin()
            for given in sent:
                self._give(self._renewed(given))
            self.flush()
        failpoint.reached("offsets-sent")
        with self._guarded():
            self._producer.commit_transaction(self._kafka.delivery_s)
        self._in_transaction, self._sent = False, []

    def _send_offsets(self, offsets: Mapping[int, Commit], consumer: RdkafkaConsumer, *, last: bool) -> bool:
        """False if a rebalance of the group came between: the client has the new generation a little later."""
        positions, metadata = consumer.positions(offsets), consumer.generation(offsets)
        with self._guarded():
            try:
                send = partial(self._producer.send_offsets_to_transaction, positions, metadata, self._kafka.delivery_s)
                within(send, self._kafka.delivery_s + 1)  # the client waits longer for a coordinator
            except KafkaException as error:
                if last or error.args[0].code() not in REBALANCING:
                    raise
                return False
        return True

    def abort(self) -> None:
        """Abort the open transaction; possible after most failures too."""
        self._in_transaction, self._sent = False, []
        try:
            self._producer.abort_transaction(self._kafka.request_s)
        except KafkaException as error:
            raise self._failed(error) from error
        self._lost.clear()

    def close(self) -> None:
        """Drop what is not acknowledged, and close."""
        if self._in_transaction:
            with contextlib.suppress(LogError):  # the broker aborts it later
                self.abort()
        self._drop()

    def _drop(self) -> None:
        client, self._client = self._client, []
        if not client:
            return
        self._producer.purge()
        for _ in range(2):  # it may say first that it can go on no more
            with contextlib.suppress(KafkaException):
                self._producer.flush(0.1)
        del self._producer
        bounded(client.clear, CLOSE_S)  # its own close() would wait for all, and warn of what is known

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except KafkaException as error:
            raise self._failed(error) from error

    def _failed(self, error: KafkaException | KafkaError | errors.KafkaError, sent: Sent | None = None) -> LogError:
        ended = self._fatal
        if ended is None and self._in_transaction and is_untold(error):
            ended, sent = transaction_error(self._producer), None
        self._failure = meaning(cause(error, ended), f"{self._doing}{destination(sent)}")
        return self._failure
