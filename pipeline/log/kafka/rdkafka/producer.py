"""A producer by librdkafka: sends again what was not written for the refusal of a record, and has transactions."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count

from confluent_kafka import KafkaError, KafkaException
from kafka import errors
from msgspec.structs import replace

from pipeline import failpoint
from pipeline.log import Commit, Consumer, Record, Refusal, Sent
from pipeline.log.kafka.client import MAX_REFUSALS, destination, meaning
from pipeline.log.kafka.cluster import Cluster
from pipeline.log.kafka.rdkafka.config import cause, is_untold, producer, within
from pipeline.log.kafka.rdkafka.connection import Connection
from pipeline.log.kafka.rdkafka.consumer import AGAIN, REBALANCING, RdkafkaConsumer
from pipeline.log.kafka.rdkafka.refusals import (
    TOO_LARGE,
    Given,
    refusal,
    refused,
    transaction_error,
    unmendable,
)
from pipeline.log.settings import KafkaSettings
from tidecast.errors import LogError

SERVE = 1000
"""Records after which the client is asked what became of those before."""
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
        self._sent: list[Given] = []
        """What was sent in the open transaction."""
        self._batch_bytes, self._alone = BATCH_BYTES, False
        self._replaced = 0
        self._failure: LogError | None = None
        self._in_transaction = False
        self._connect()

    def _connect(self) -> None:
        settings = producer(self._kafka, self._cluster, self._transactional_id)
        size = 1 if self._alone else self._batch_bytes
        self._connection = Connection(settings | {"batch.size": size}, self._kafka)
        with self._guarded():
            self._connection.connect(self._topics)

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
                self._connection.find(topic)
        number = next(self._numbers)
        self._give(Given(topic, partition, key, value, timestamp, headers, cause, 0, number, self._connection.lost))
        if number % SERVE == 0:
            self._connection.serve(0)

    def _give(self, given: Given) -> None:
        if self._failure is not None:
            raise self._failure
        where = -1 if given.partition is None else given.partition
        time_ms = given.timestamp or (0 if given.timestamp is None else 1)
        headers = list(given.headers) if given.headers else None
        try:
            client = self._connection.client
            client.produce(given.topic, given.value, given.key, where, given, None, time_ms, headers)
        except BufferError:
            if waiting := self._connection.make_room():
                raise self._failed(errors.KafkaTimeoutError(f"{waiting:,} records wait to be written"), given) from None
            self._give(given)
        except KafkaException as error:
            self._not_taken(given, error.args[0])
        else:
            if self._in_transaction:
                self._sent.append(given)
            elif self._connection.is_first(given.topic, where):
                self._settle()  # the broker takes one behind it though it refuses this one, until it knows the client

    def _not_taken(self, given: Given, error: KafkaError) -> None:
        if error.code() in TOO_LARGE:  # more than the client sends at once
            self._give(self._replacement(given, error))
            return
        self._settle()  # it takes nothing more since another record was refused
        if not self._connection.lost:
            raise self._failed(error, given)
        self._send_again()
        self._give(self._renewed(given))

    def _renewed(self, sent: Sent) -> Given:
        fields = (sent.topic, sent.partition, sent.key, sent.value, sent.timestamp, sent.headers, sent.cause)
        return Given(*fields, sent.refusals, next(self._numbers), self._connection.lost)

    def flush(self) -> None:
        """Return when all records sent are acknowledged; raise the first failure of any."""
        if self._failure is not None:
            raise self._failure
        self._settle()
        while self._connection.lost:
            self._send_again()
            self._settle()
        if self._connection.fatal is not None:
            raise self._failed(self._connection.fatal)
        if self._alone and not self._in_transaction:
            self._batch_again()

    def _settle(self) -> None:
        if left := self._connection.settle():
            raise self._failed(errors.KafkaTimeoutError(f"{left:,} records are not acknowledged"))

    def _send_again(self) -> None:
        """Send what was not written again, with replacements for the records that the broker refuses."""
        lost = sorted(self._connection.lost, key=lambda each: each.given.number)
        if (failed := unmendable(lost, in_transaction=self._in_transaction)) is not None:
            raise self._failed(failed.error, failed.given)
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
        if self.on_refusal is None or sent.cause is None or sent.refusals >= MAX_REFUSALS:
            raise self._failed(error, sent)

    def _replacement(self, sent: Sent, error: KafkaError) -> Given:
        self._check_replaceable(sent, error)
        assert self.on_refusal is not None
        self._replaced += 1
        return self._renewed(replace(self.on_refusal(sent, refusal(error)), refusals=sent.refusals + 1))

    def begin(self) -> None:
        """Open a transaction."""
        if self._alone:
            self._batch_again()
        self._begin()

    def _begin(self) -> None:
        with self._guarded():
            self._connection.client.begin_transaction()
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
            self._connection.client.commit_transaction(self._kafka.delivery_s)
        self._in_transaction, self._sent = False, []

    def _send_offsets(self, offsets: Mapping[int, Commit], consumer: RdkafkaConsumer, *, last: bool) -> bool:
        """False if a rebalance of the group came between: the client has the new generation a little later."""
        positions, metadata = consumer.positions(offsets), consumer.generation(offsets)
        with self._guarded():
            try:
                send_offsets = self._connection.client.send_offsets_to_transaction
                send = partial(send_offsets, positions, metadata, self._kafka.delivery_s)
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
            self._connection.client.abort_transaction(self._kafka.request_s)
        except KafkaException as error:
            raise self._failed(error) from error
        self._connection.lost.clear()

    def renew(self) -> None:
        """Connect anew: a client goes on with the numbers of a topic's records when another has its name."""
        if self._failure is not None:
            raise self._failure
        self.close()
        self._failure = None
        self._connect()

    def close(self) -> None:
        """Drop what is not acknowledged, and close."""
        if self._in_transaction:
            with contextlib.suppress(LogError):  # the broker aborts it later
                self.abort()
        self._connection.drop()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except KafkaException as error:
            raise self._failed(error) from error

    def _failed(self, error: KafkaException | KafkaError | errors.KafkaError, sent: Sent | None = None) -> LogError:
        ended = self._connection.fatal
        if ended is None and self._in_transaction and is_untold(error):
            ended, sent = transaction_error(self._connection.client), None
        self._failure = meaning(cause(error, ended), f"{self._doing}{destination(sent)}")
        return self._failure
