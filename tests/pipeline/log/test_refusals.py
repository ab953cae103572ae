"""Records that a broker refuses because of what they are: replaced, while all others are written as they were sent."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import pytest
from kafka import KafkaAdminClient
from msgspec.structs import replace
from waiting import until

from pipeline.log import Commit, Consumer, EventLog, Producer, Record, Refusal, Sent
from pipeline.log.connect import connect
from tidecast.errors import LogError

Fresh = Callable[[str], str]
OLD = 1_000_000_000_000
LIMITS = {"message.timestamp.before.max.ms": "86400000", "max.message.bytes": "4000"}


class Cause(NamedTuple):
    """A record of the input."""

    topic: str = "input"
    partition: int = 3
    offset: int = 42
    timestamp: int = 0
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    headers: tuple[tuple[str, bytes], ...] = ()


@pytest.fixture
def log(kafka_bootstrap: str) -> Iterator[EventLog]:
    with closing(connect(kafka_bootstrap)) as log:
        yield log


@pytest.fixture
def topic(kafka_bootstrap: str, fresh: Fresh) -> str:
    """Takes times of the last day, and 4,000 bytes."""
    with KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
        admin.create_topics({(name := fresh("limited")): {"num_partitions": 2, "configs": LIMITS}})
    return name


@pytest.fixture(params=[True, False], ids=["transaction", "idempotent"])
def written(request: pytest.FixtureRequest, log: EventLog, topic: str, fresh: Fresh) -> "Written":
    return Written(log, topic, fresh, transactional=request.param)


class Written:
    """Sends records of the input, and reads what was written of them."""

    def __init__(self, log: EventLog, topic: str, fresh: Fresh, *, transactional: bool) -> None:
        self.log, self.topic, self.transactional = log, topic, transactional
        self.refused: list[tuple[Sent, Refusal]] = []
        self.producer: Producer = log.producer(fresh("writer") if transactional else None)
        self.producer.on_refusal = self._replaced
        log.create_topic(source := fresh("input"), 1)
        self.consumer: Consumer = log.consumer(fresh("group"), source)
        until(lambda: bool(self.consumer.poll(0.5, 1).assigned))
        if transactional:
            self.producer.begin()

    def _replaced(self, sent: Sent, refusal: Refusal) -> Sent:
        self.refused.append((sent, refusal))
        value = (sent.value or b"")[:10] if refusal.too_large else sent.value
        return replace(sent, timestamp=None, value=value)

    def send(self, value: bytes, timestamp: int | None = None, partition: int = 0) -> None:
        cause: Record = Cause()
        self.producer.send(self.topic, partition, b"k", value, timestamp=timestamp, cause=cause)

    def values(self) -> list[list[bytes]]:
        """The values of both partitions, once all is written."""
        self.producer.flush()
        if self.transactional:
            self.producer.commit({0: Commit(7)}, self.consumer)
            assert self.consumer.committed([0]) == {0: Commit(7)}
        return [
            [record.value or b"" for batch in self.log.read(self.topic, number, *bounds) for record in batch]
            for number, bounds in self.log.bounds(self.topic).items()
        ]


def test_records_of_a_refused_time(written: Written) -> None:
    began = int(time.time() * 1000)
    for value in range(100):
        written.send(b"%d" % value, OLD if value in (10, 50) else None, value % 2)
    assert written.values() == [[b"%d" % value for value in range(first, 100, 2)] for first in (0, 1)]
    assert [(sent.value, refusal.too_large) for sent, refusal in written.refused] == [(b"10", False), (b"50", False)]
    bounds = written.log.bounds(written.topic)[0]
    records = [record for batch in written.log.read(written.topic, 0, *bounds) for record in batch]
    assert records[5].timestamp >= began


def test_a_record_that_is_too_large(written: Written) -> None:
    for value in range(100):
        written.send(b"%03d" % value * (2000 if value in (10, 11, 50) else 10), None, value % 2)
    sizes = [[30 if value not in (10, 11, 50) else 10 for value in range(first, 100, 2)] for first in (0, 1)]
    assert [[len(value) for value in values] for values in written.values()] == sizes
    assert {(sent.value or b"")[:3] for sent, _ in written.refused} == {b"010", b"011", b"050"}
    assert all(refusal.too_large for _, refusal in written.refused)


def test_a_record_larger_than_a_request(written: Written) -> None:
    written.send(b"first")
    written.send(b"x" * (17 << 20))
    written.send(b"last")
    assert written.values() == [[b"first", b"x" * 10, b"last"], []]


def test_the_first_record_of_a_writer(log: EventLog, topic: str, fresh: Fresh) -> None:
    """The broker would take one behind it, as it does not know this writer in that partition yet."""
    written = Written(log, topic, fresh, transactional=False)
    for _ in range(5):
        for value in range(300):
            written.send(b"%d" % value, OLD if value < 2 else None, value % 2)
        written.producer.flush()
        written.producer.renew()
    assert written.values() == [[b"%d" % value for value in range(first, 300, 2)] * 5 for first in (0, 1)]


@pytest.mark.slow
def test_many_refused_records_in_a_row(written: Written) -> None:
    for value in range(60):
        written.send(b"%03d" % value * 2000)
    assert written.values() == [[(b"%03d" % value * 4)[:10] for value in range(60)], []]


def test_refusals_one_after_another(written: Written) -> None:
    """Also while records are in flight, and in a producer that has been there before."""
    for number in range(3):
        for value in range(30):
            written.send(b"%d" % (30 * number + value), OLD if value == 7 else None)
        written.producer.flush()
    assert written.values() == [[b"%d" % value for value in range(90)], []]
    assert len({sent.value for sent, _ in written.refused}) == 3


def test_a_record_that_is_refused_again_and_again(written: Written) -> None:
    written.producer.on_refusal = lambda sent, _: sent
    written.send(b"1", OLD, partition=1)
    place = rf"{written.topic}/1 what came of input/3 at offset 42: .*InvalidTimestamp"
    with pytest.raises(LogError, match=place):
        written.producer.flush()


def test_a_refused_record_without_a_replacement(written: Written) -> None:
    written.producer.on_refusal = None
    written.send(b"1", OLD, partition=1)
    with pytest.raises(LogError, match=rf"{written.topic}/1 what came of input/3 at offset 42"):
        written.producer.flush()


def test_a_keyless_record_in_a_compacted_topic(log: EventLog, fresh: Fresh) -> None:
    log.create_topic(topic := fresh("state"), 1, compacted=True)
    producer, refused = log.producer(), list[Refusal]()

    def keyed(sent: Sent, refusal: Refusal) -> Sent:
        refused.append(refusal)
        return replace(sent, key=b"k")

    producer.on_refusal = keyed
    for number in range(3):
        producer.send(topic, 0, None if number == 1 else b"k", b"%d" % number, cause=Cause())
    producer.flush()
    values = [record.value for batch in log.read(topic, 0, 0, 3) for record in batch]
    assert values == [b"0", b"1", b"2"]
    assert [refusal.too_large for refusal in refused] == [False]


def test_a_refused_record_of_a_transaction_without_causes_fails(log: EventLog, topic: str, fresh: Fresh) -> None:
    """As in a checkpoint: its records are not kept to be sent again, so none of them may be left out."""
    written = Written(log, topic, fresh, transactional=True)
    for value in range(10):
        written.producer.send(topic, 0, b"k", b"%d" % value * (5000 if value == 5 else 1))
    with pytest.raises(LogError, match=rf"{topic}/0: .*TooLarge"):
        written.producer.commit({0: Commit(7)}, written.consumer)
    assert written.consumer.committed([0]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_any_mixture_of_refused_and_other_records(written: Written, seed: int) -> None:
    numbers = random.Random(seed)
    expected: tuple[list[bytes], list[bytes]] = ([], [])
    for number in range(numbers.randint(1, 3000)):
        kind, partition = numbers.choices(("plain", "old", "large"), (300, 1, 1))[0], numbers.randrange(2)
        value = b"%06d" % number * (900 if kind == "large" else 2)
        written.send(value, OLD if kind == "old" else None, partition)
        expected[partition].append(value[:10] if kind == "large" else value)
        if numbers.random() < 0.002:
            written.producer.flush()
    assert written.values() == list(expected)
