"""What every EventLog must do; and below, what only Kafka has."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from waiting import PATIENCE_S, until

from pipeline.log import Bounds, Commit, Consumer, EventLog, Producer, Record, Undecodable
from pipeline.log.connect import connect
from pipeline.log.kafka import client as python_client
from pipeline.log.kafka import consumer as kafka_member
from pipeline.log.kafka.batches import MAX_UNPACKED
from pipeline.log.kafka.rdkafka import config as rdkafka_config
from pipeline.log.settings import KafkaSettings
from pipeline.log.topics import TopicConfig
from tidecast.errors import ConsumerFenced, LogError, LogUnavailable, UnknownTopic

Fresh = Callable[[str], str]
START = 1_700_000_000_000
LONG_SESSIONS = KafkaSettings(session_s=2 * PATIENCE_S)
"""With these a member that did not leave by itself keeps its partitions for longer than any test waits."""


@pytest.fixture
def topic(log: EventLog, fresh: Fresh) -> str:
    topic = fresh("orders")
    assert log.create_topic(topic, 2) == 2
    return topic


def write(log: EventLog, topic: str, partition: int, values: Sequence[int]) -> None:
    """Each value as a record whose key is its text, whose time is START + value."""
    with contextlib.closing(log.producer()) as producer:
        for value in values:
            producer.send(topic, partition, f"{value}".encode(), f"{value}".encode(), timestamp=START + value)
        producer.flush()


def numbers(records: Sequence[Record]) -> list[int]:
    return [int(record.value or b"") for record in records]


def read(log: EventLog, topic: str, partition: int = 0, start: int = 0, stop: int | None = None) -> list[Record]:
    end = log.bounds(topic)[partition].end if stop is None else stop
    return [record for batch in log.read(topic, partition, start, end) for record in batch]


def polled(consumer: Consumer, count: int) -> dict[int, list[Record]]:
    """The next `count` records, by partition."""
    found: dict[int, list[Record]] = {}

    def poll() -> None:
        for partition, records in consumer.poll(0.5, 100).records.items():
            found.setdefault(partition, []).extend(records)

    until(lambda: sum(map(len, found.values())) >= count, meanwhile=poll)
    return found


def assigned(consumer: Consumer, count: int = 1) -> set[int]:
    """Poll until `count` partitions have been assigned."""
    found: set[int] = set()
    until(lambda: len(found) >= count, meanwhile=lambda: found.update(consumer.poll(0.5, 100).assigned))
    return found


def started(log: EventLog, group: str, topic: str, offset: int = 0) -> Consumer:
    """A member that owns both partitions and reads from `offset`."""
    consumer = log.consumer(group, topic)
    for partition in assigned(consumer, 2):
        consumer.seek(partition, offset)
    return consumer


def test_topics_are_created_once(log: EventLog, topic: str, fresh: Fresh) -> None:
    assert log.create_topic(topic, 5) == log.partitions(topic) == 2
    assert log.topic_id(topic) == log.topic_id(topic) != log.topic_id(_made(log, fresh("orders")))


def _made(log: EventLog, topic: str) -> str:
    log.create_topic(topic, 1)
    return topic


def test_a_topic_that_does_not_exist(log: EventLog, fresh: Fresh) -> None:
    missing = fresh("missing")
    calls: list[Callable[[], object]] = [
        lambda: log.partitions(missing),
        lambda: log.topic_id(missing),
        lambda: log.topic_config(missing),
        lambda: log.committed("g", missing),
        lambda: log.bounds(missing),
        lambda: log.offsets_at(missing, 0),
        lambda: list(log.read(missing, 0, 0, 1)),
        lambda: log.consumer("g", missing),
        lambda: log.producer().send(missing, 0, b"k", b"v"),
    ]
    for call in calls:
        with pytest.raises(UnknownTopic, match=missing):
            call()
    with pytest.raises(UnknownTopic):
        log.partitions(missing)  # asking did not create it


def test_an_invalid_topic_name(log: EventLog) -> None:
    with pytest.raises(LogError):
        log.create_topic("not a name", 1)


def test_records_come_back_as_sent(log: EventLog, topic: str) -> None:
    producer = log.producer()
    producer.send(topic, 1, b"k", b"\xff\x00", timestamp=START, headers=[("a", b"1"), ("a", b"")])
    producer.send(topic, 1, b"k", None, timestamp=START - 1)
    before = int(time.time() * 1000)
    producer.send(topic, 1, None, b"now")
    producer.flush()
    first, second, third = read(log, topic, 1)
    assert (first.topic, first.partition, first.offset, first.timestamp) == (topic, 1, 0, START)
    assert (first.key, first.value, list(first.headers)) == (b"k", b"\xff\x00", [("a", b"1"), ("a", b"")])
    assert (second.offset, second.timestamp, second.value, list(second.headers)) == (1, START - 1, None, [])
    assert (third.offset, third.key, third.value) == (2, None, b"now")
    assert before <= third.timestamp <= time.time() * 1000


def test_partitions_are_read_part_by_part(log: EventLog, fresh: Fresh) -> None:
    """Of several partitions at once, each time a part that ends before they do."""
    log.create_topic(topic := fresh("parts"), 3)
    for partition in range(3):
        write(log, topic, partition, range(3000))
    found: list[list[int]] = [[], [], []]
    for start in range(0, 3000, 250):
        for records in log.read_partitions(topic, dict.fromkeys(range(3), Bounds(start, start + 250))):
            found[records[0].partition] += numbers(records)
    assert found == [list(range(3000))] * 3


def test_read_returns_the_records_of_an_offset_range(log: EventLog, topic: str) -> None:
    write(log, topic, 0, range(10))
    assert log.bounds(topic) == {0: Bounds(0, 10), 1: Bounds(0, 0)}
    assert numbers(read(log, topic, start=3, stop=7)) == [3, 4, 5, 6]
    assert read(log, topic, start=4, stop=4) == read(log, topic, 1) == []
    assert log.offsets_at(topic, START + 5) == {0: 5, 1: 0}
    assert log.offsets_at(topic, START + 50) == {0: 10, 1: 0}
    assert log.offsets_at(topic, 0) == {0: 0, 1: 0}


def test_partitions_are_read_side_by_side(log: EventLog, topic: str) -> None:
    write(log, topic, 0, range(20))
    write(log, topic, 1, range(20, 40))
    first, second = log.read(topic, 0, 0, 20), log.read(topic, 1, 0, 20)
    pairs = [numbers(next(first)), numbers(next(second)), *map(numbers, first), *map(numbers, second)]
    assert sorted(number for pair in pairs for number in pair) == list(range(40))


def test_a_key_keeps_its_partition(log: EventLog, topic: str) -> None:
    with contextlib.closing(log.producer()) as producer:
        for value in range(60):
            producer.send(topic, None, f"{value % 20}".encode(), f"{value}".encode())
        producer.flush()
    keys = [{record.key for record in read(log, topic, partition)} for partition in (0, 1)]
    assert all(keys)
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 20


def test_a_compacted_topic_keeps_each_keys_newest(log: EventLog, fresh: Fresh) -> None:
    topic = fresh("state")
    log.create_topic(topic, 1, compacted=True)
    with contextlib.closing(log.producer()) as producer:
        for _ in range(2):
            for value in range(6):
                producer.send(topic, 0, f"{value % 3}".encode(), f"{value}".encode())
            producer.flush()
        producer.send(topic, 0, b"0", None)
        producer.flush()
    assert log.bounds(topic)[0].end == 13
    newest = {record.key: record.value for record in read(log, topic)}
    assert newest == {b"0": None, b"1": b"4", b"2": b"5"}


def test_many_large_values_of_a_compacted_topic_are_replaced_in_little_time(tmp_path: Path) -> None:
    """Each is found by its key: among as many in a scan it takes minutes, and else a second."""
    count, began = 10_000, time.monotonic()
    with contextlib.closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        log.create_topic("state", 1, compacted=True)
        with contextlib.closing(log.producer()) as producer:
            for value in (bytes(3_000), bytes(4_000)):
                for number in range(count):
                    producer.send("state", 0, b"s:sensor-%06d" % number, value)
                producer.flush()
        assert {len(record.value or b"") for record in read(log, "state")} == {4_000}
    assert time.monotonic() - began < PATIENCE_S / 6


def test_the_config_of_a_topic(log: EventLog, topic: str, fresh: Fresh) -> None:
    state = fresh("state")
    log.create_topic(state, 1, compacted=True)
    topic_config = log.topic_config(topic)
    assert not topic_config.compacted
    assert (topic_config.replication, topic_config.min_insync, topic_config.brokers) == (1, 1, 1)
    assert topic_config.max_message_bytes >= 1_000_000
    compacted = log.topic_config(state)
    assert compacted.compacted
    assert (compacted.retention_ms, compacted.retention_bytes) == (None, None)


def test_the_config_of_a_topic_has_its_retention(kafka_bootstrap: str, fresh: Fresh) -> None:
    limits = {"retention.ms": "60000", "retention.bytes": "5000", "max.message.bytes": "2000"}
    both, unlimited = fresh("orders"), fresh("orders")
    with KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
        admin.create_topics({both: {"num_partitions": 1, "configs": limits | {"cleanup.policy": "compact,delete"}}})
        admin.create_topics({unlimited: {"num_partitions": 1, "configs": {"retention.ms": "-1"}}})
    with contextlib.closing(connect(kafka_bootstrap)) as log:
        assert log.topic_config(both) == TopicConfig(True, 60_000, 5_000, 1, 1, 2_000, 1, ahead_ms=3_600_000)
        assert log.topic_config(unlimited)[:3] == (False, None, None)


def test_committed_offsets_are_read_without_joining_the_group(log: EventLog, topic: str, fresh: Fresh) -> None:
    group = fresh("group")
    assert log.committed(group, topic) == {}
    write(log, topic, 0, range(3))
    consumer = started(log, group, topic)
    consumer.commit({0: Commit(2, "meta")})
    assert log.committed(group, topic) == {0: Commit(2, "meta")}
    consumer.commit({1: Commit(0)})
    assert log.committed(group, topic) == {0: Commit(2, "meta"), 1: Commit(0)}
    assert log.committed(fresh("group"), topic) == {}


def test_no_records_arrive_before_a_seek(log: EventLog, topic: str, fresh: Fresh) -> None:
    write(log, topic, 0, range(3))
    write(log, topic, 1, range(3))
    consumer = log.consumer(fresh("group"), topic)
    assert assigned(consumer, 2) == {0, 1}
    assert not consumer.poll(0.5, 10).records
    consumer.seek(1, 1)
    assert {partition: numbers(records) for partition, records in polled(consumer, 2).items()} == {1: [1, 2]}


def test_poll_returns_at_most_max_records(log: EventLog, topic: str, fresh: Fresh) -> None:
    write(log, topic, 0, range(10))
    write(log, topic, 1, range(10))
    consumer = started(log, fresh("group"), topic)
    found: list[tuple[int, int]] = []
    while len(found) < 20:
        batch = consumer.poll(5, 3).records
        assert 1 <= sum(map(len, batch.values())) <= 3
        found += [(partition, record.offset) for partition, records in batch.items() for record in records]
    assert sorted(found) == [(partition, offset) for partition in (0, 1) for offset in range(10)]


def test_a_group_resumes_at_its_commit(log: EventLog, topic: str, fresh: Fresh) -> None:
    group = fresh("group")
    write(log, topic, 0, range(6))
    consumer = started(log, group, topic)
    assert not consumer.committed([0])
    assert numbers(polled(consumer, 6)[0]) == list(range(6))
    metadata = "".join(chr(33 + index % 90) for index in range(4000))
    consumer.commit({0: Commit(4, metadata)})
    consumer.close()

    successor = log.consumer(group, topic)
    assert assigned(successor, 2) == {0, 1}
    assert successor.committed([0]) == {0: Commit(4, metadata)}
    assert not successor.committed([1])
    successor.seek(0, 4)
    assert numbers(polled(successor, 2)[0]) == [4, 5]


def test_too_much_metadata_is_refused(log: EventLog, topic: str, fresh: Fresh) -> None:
    consumer = started(log, fresh("group"), topic)
    with pytest.raises(LogError):
        consumer.commit({0: Commit(1, "x" * 5000)})
    assert not consumer.committed([0])


def test_seek_rewinds(log: EventLog, topic: str, fresh: Fresh) -> None:
    write(log, topic, 0, range(5))
    consumer = started(log, fresh("group"), topic)
    assert numbers(polled(consumer, 5)[0]) == [0, 1, 2, 3, 4]
    consumer.seek(0, 3)
    assert numbers(polled(consumer, 2)[0]) == [3, 4]


def test_new_records_arrive_soon(log: EventLog, topic: str, fresh: Fresh) -> None:
    consumer = started(log, fresh("group"), topic)
    consumer.poll(0, 10)
    writing = threading.Timer(0.2, write, (log, topic, 1, [7]))
    writing.start()
    assert numbers(consumer.poll(PATIENCE_S, 10).records[1]) == [7], "a poll waits no longer than for a record"
    writing.join()


def test_lag_counts_the_records_beyond_the_position(log: EventLog, topic: str, fresh: Fresh) -> None:
    consumer = log.consumer(fresh("group"), topic)
    assert assigned(consumer, 2) == {0, 1}
    write(log, topic, 0, range(10))
    assert consumer.lag() == {}, "nothing is read before a seek"
    consumer.seek(0, 4)
    assert consumer.lag() == {0: 6}
    assert len(polled(consumer, 6)[0]) == 6
    assert consumer.lag() == {0: 0}


def test_lag_excludes_transaction_markers_and_aborted_records(log: EventLog, topic: str, fresh: Fresh) -> None:
    """Markers of transactions, and what was aborted, take offsets at the end of a topic."""
    consumer = started(log, fresh("group"), topic)
    with contextlib.closing(log.producer(fresh("writer"))) as producer:
        ends: list[Callable[[], None]] = [lambda: producer.commit({}, consumer), producer.abort]
        for end in ends:
            producer.begin()
            producer.send(topic, 0, None, b"1")
            producer.flush()
            end()
    assert len(polled(consumer, 1)[0]) == 1
    until(lambda: not any(consumer.lag().values()), meanwhile=lambda: consumer.poll(0.1, 100))


def test_a_transaction_is_atomic(log: EventLog, topic: str, fresh: Fresh) -> None:
    output, group = _made(log, fresh("output")), fresh("group")
    write(log, topic, 0, range(3))
    consumer = started(log, group, topic)
    records = polled(consumer, 3)[0]
    producer = log.producer(fresh("writer"))
    watcher = log.consumer(fresh("group"), output)
    assert assigned(watcher) == {0}
    watcher.seek(0, 0)

    producer.begin()
    producer.send(output, 0, b"k", b"-1")
    producer.abort()
    producer.begin()
    for record in records:
        producer.send(output, 0, record.key, record.value)
    producer.flush()
    assert not watcher.poll(0.3, 10).records  # neither the aborted nor the open one
    producer.commit({0: Commit(3, "meta")}, consumer)

    assert consumer.committed([0]) == {0: Commit(3, "meta")}
    assert numbers(polled(watcher, 3)[0]) == numbers(read(log, output)) == [0, 1, 2]
    producer.begin()
    producer.commit({0: Commit(3, "again")}, consumer)
    assert consumer.committed([0]) == {0: Commit(3, "again")}


def test_a_new_producer_fences_the_one_before_it(log: EventLog, topic: str, fresh: Fresh) -> None:
    group, name = fresh("group"), fresh("writer")
    consumer = started(log, group, topic)
    old = log.producer(name)
    old.begin()
    old.send(topic, 0, b"k", b"1")
    old.flush()
    new = log.producer(name)
    new.begin()
    new.send(topic, 0, b"k", b"2")
    new.commit({0: Commit(1)}, consumer)
    with pytest.raises(ConsumerFenced):
        old.commit({0: Commit(9)}, consumer)
    assert numbers(read(log, topic)) == [2]
    assert consumer.committed([0]) == {0: Commit(1)}


def test_a_fenced_producer_stays_fenced(log: EventLog, topic: str, fresh: Fresh) -> None:
    consumer, name = started(log, fresh("group"), topic), fresh("writer")
    old, _ = log.producer(name), log.producer(name)
    for _ in range(2):
        with pytest.raises(ConsumerFenced):
            _transact(old, topic, consumer)
    assert not read(log, topic)


def _transact(producer: Producer, topic: str, consumer: Consumer) -> None:
    producer.begin()
    producer.send(topic, 0, b"k", b"1")
    producer.commit({}, consumer)


class Polling(threading.Thread):
    """Polls a member until it is told to stop, then closes it. `owned` is what the polls so far leave it with."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(daemon=True)
        self.consumer = consumer
        self.owned: set[int] = set()
        self.stopped = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.stopped.is_set():
            poll = self.consumer.poll(0.1, 10)
            self.owned = self.owned - set(poll.revoked) | set(poll.assigned)
        self.consumer.close()

    def stop(self) -> None:
        self.stopped.set()
        self.join()


def test_partitions_of_a_closed_consumer_are_reassigned(log_address: str, topic: str, fresh: Fresh) -> None:
    group = fresh("group")
    with contextlib.closing(connect(log_address, LONG_SESSIONS)) as log:
        first = Polling(log.consumer(group, topic))
        until(lambda: first.owned == {0, 1})
        second = Polling(log.consumer(group, topic))
        if not log_address.startswith("sqlite:"):  # Kafka shares; in the embedded log the first one keeps what it has
            until(lambda: len(first.owned) == len(second.owned) == 1)
            assert first.owned | second.owned == {0, 1}
        first.stop()
        until(lambda: second.owned == {0, 1})
        second.stop()


def test_a_member_commits_before_its_partitions_are_given_up(kafka_bootstrap: str, fresh: Fresh) -> None:
    group, topic, seconds, committed = fresh("group"), fresh("orders"), list[float](), list[int]()
    with contextlib.closing(connect(kafka_bootstrap, LONG_SESSIONS)) as log:
        log.create_topic(topic, 2)
        first = Polling(log.consumer(group, topic))

        def commit() -> None:
            began = time.monotonic()
            with contextlib.suppress(LogUnavailable):
                first.consumer.commit({partition: Commit(7, "before") for partition in first.owned})
            seconds.append(time.monotonic() - began)
            committed.append(len(first.owned))

        until(lambda: first.owned == {0, 1})
        first.consumer.before_revocation = commit
        second = Polling(log.consumer(group, topic))
        until(lambda: len(first.owned) == len(second.owned) == 1)
        assert 2 in committed
        assert log.committed(group, topic) == {0: Commit(7, "before"), 1: Commit(7, "before")}
        assert max(seconds) < 5
        for member in (first, second):
            member.stop()


def test_a_consumer_without_the_partition_cannot_commit(log: EventLog, topic: str, fresh: Fresh) -> None:
    group = fresh("group")
    bystander = log.consumer(group, topic)
    with pytest.raises(ConsumerFenced):
        bystander.commit({0: Commit(1)})
    with pytest.raises(ValueError, match=r"[Aa]ssigned"):
        bystander.seek(0, 0)


def test_concurrent_producers(log: EventLog, log_address: str, topic: str) -> None:
    def work(first: int) -> None:
        with contextlib.closing(connect(log_address)) as own:
            for start in range(first, first + 100, 20):
                write(own, topic, 0, range(start, start + 20))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = read(log, topic)
    assert [record.offset for record in records] == list(range(300))
    assert sorted(numbers(records)) == list(range(300))


def delete_before(log_address: str, topic: str, offset: int) -> None:
    """Delete partition 0's records before `offset`, as retention does."""
    if not log_address.startswith("sqlite:"):
        with KafkaAdminClient(bootstrap_servers=log_address) as admin:
            admin.delete_records({TopicPartition(topic, 0): offset})
        return
    with contextlib.closing(sqlite3.connect(log_address.removeprefix("sqlite:"))) as connection, connection:
        connection.execute(
            "DELETE FROM records WHERE offset < ? AND partition_id ="
            " (SELECT id FROM partitions WHERE topic = ? AND number = 0)",
            (offset, topic),
        )


def test_reading_after_old_records_are_deleted(log: EventLog, log_address: str, topic: str, fresh: Fresh) -> None:
    write(log, topic, 0, range(10))
    consumer = started(log, fresh("group"), topic, offset=2)
    delete_before(log_address, topic, 6)
    assert log.bounds(topic)[0] == Bounds(6, 10)
    assert numbers(read(log, topic)) == [6, 7, 8, 9]
    consumer.seek(0, 2)  # it may have fetched what was there
    with pytest.raises(LogError, match="2"):
        polled(consumer, 1)
    delete_before(log_address, topic, 10)
    assert log.bounds(topic)[0] == Bounds(10, 10)
    assert read(log, topic) == []
    write(log, topic, 0, [10])
    assert log.bounds(topic)[0] == Bounds(10, 11)


def test_a_record_that_cannot_be_written(log: EventLog, log_address: str, topic: str) -> None:
    producer = log.producer()
    producer.send(topic, 0, b"k", b"x" * 2_000_000)  # more than the broker takes
    if log_address.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(log_address.removeprefix("sqlite:"))) as connection, connection:
            connection.execute("ALTER TABLE records RENAME TO elsewhere")
    with pytest.raises(LogError):
        producer.flush()
    with pytest.raises(LogError):
        producer.flush()


def test_everything_opened_is_closed(log_address: str, fresh: Fresh) -> None:
    log = connect(log_address, LONG_SESSIONS)
    topic, group = _made(log, fresh("orders")), fresh("group")
    assert assigned(log.consumer(group, topic)) == {0}
    log.producer(fresh("writer"))
    log.close()
    with contextlib.closing(connect(log_address)) as other:
        assert assigned(other.consumer(group, topic)) == {0}


def test_header_keys_that_are_not_utf8(kafka_bootstrap: str, kafka_client: str, fresh: Fresh) -> None:
    class Bytes(str):
        def encode(self, *_: object) -> bytes:
            return b"\xffkey\xfe"

    with contextlib.closing(connect(kafka_bootstrap)) as log:
        topic = _made(log, fresh("orders"))
        with contextlib.closing(connect(kafka_bootstrap, KafkaSettings(client="kafka-python"))) as other:
            producer = other.producer()
            for value in range(3):  # in one batch
                producer.send(topic, 0, b"\xff", f"{value}".encode(), headers=[("a", b"\xff"), (Bytes("b"), b"\xfe")])
            producer.flush()
        consumer = log.consumer(fresh("group"), topic)
        assigned(consumer)
        consumer.seek(0, 0)
        records = polled(consumer, 3)[0]
    assert numbers(records) == [0, 1, 2]
    assert {record.key for record in records} == {b"\xff"}
    assert list(records[1].headers) == [("a", b"\xff"), ("?" if kafka_client == "librdkafka" else "?key?", b"\xfe")]
    assert all(isinstance(record.headers, Undecodable) for record in records)


def test_a_batch_that_unpacks_to_too_much_is_read_by_position(kafka_bootstrap: str, fresh: Fresh) -> None:
    topic, many = fresh("packed"), (MAX_UNPACKED >> 20) + 1
    with KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
        admin.create_topics({topic: {"num_partitions": 1, "configs": {"max.message.bytes": 4 << 20}}})
    limits = {"batch_size": 2 * MAX_UNPACKED, "max_request_size": 2 * MAX_UNPACKED, "linger_ms": 60_000}
    with contextlib.closing(KafkaProducer(bootstrap_servers=kafka_bootstrap, compression_type="zstd", **limits)) as raw:
        for count in (1, many, 1):
            for _ in range(count):
                raw.send(topic, bytes(1 << 20), b"k", partition=0)
            raw.flush(60)
    with contextlib.closing(connect(kafka_bootstrap)) as log:
        consumer = log.consumer(fresh("group"), topic)
        assigned(consumer)
        consumer.seek(0, 0)
        for records in (polled(consumer, many + 2)[0], read(log, topic)):
            assert [record.offset for record in records] == list(range(many + 2))
            odd = [isinstance(record.headers, Undecodable) for record in records]
            assert odd == [False, *[True] * many, False]


def test_what_one_client_commits_is_what_another_reads(kafka_server: tuple[str, Path], fresh: Fresh) -> None:
    """With metadata of every length: of a text without a zero byte at its end librdkafka returns what is behind it."""
    topic, group = fresh("orders"), fresh("group")
    written = {number: Commit(number, "x" * number) for number in range(48)}
    for writing in ("kafka-python", "librdkafka"):
        for reading in ("librdkafka", "kafka-python"):
            for client in (writing, reading):
                with contextlib.closing(connect(kafka_server[0], KafkaSettings(client=client))) as log:
                    log.create_topic(topic, len(written))
                    consumer, owned = log.consumer(f"{group}-{writing}-{reading}", topic), set[int]()
                    while len(owned) < len(written):
                        owned.update(consumer.poll(0.5, 1).assigned)
                    if client == writing:
                        consumer.commit(written)
                    assert consumer.committed(written) == written, f"{writing} -> {client}"


def test_deleted_topics_are_gone_and_may_be_made_anew(log: EventLog, fresh: Fresh) -> None:
    kept, gone, group = _made(log, fresh("kept")), _made(log, fresh("gone")), fresh("group")
    for topic in (kept, gone):
        write(log, topic, 0, [1, 2])
    with contextlib.closing(log.consumer(group, gone)) as consumer:
        assigned(consumer)
        consumer.seek(0, 0)
        polled(consumer, 2)
        consumer.commit({0: Commit(2)})
    before = log.topic_id(gone)
    log.delete_topics([gone])
    until(lambda: not log.identities([gone]))
    until(lambda: _made(log, gone) == gone and log.topic_id(gone) != before)
    assert (numbers(read(log, gone)), numbers(read(log, kept))) == ([], [1, 2])
    assert not log.committed(fresh("other"), gone)


def test_a_renewed_producer_writes_to_a_topic_made_anew(log: EventLog, fresh: Fresh) -> None:
    topic, consumer = _made(log, fresh("topic")), log.consumer(fresh("group"), _made(log, fresh("read")))
    producer, before = log.producer(fresh("writer")), log.topic_id(topic)
    for _ in range(3):
        _transact(producer, topic, consumer)
    log.delete_topics([topic])
    until(lambda: not log.identities([topic]))
    until(lambda: _made(log, topic) == topic and log.topic_id(topic) != before)
    producer.begin()
    producer.renew()
    for _ in range(2):
        _transact(producer, topic, consumer)
    assert numbers(read(log, topic)) == [1, 1]


def test_a_member_removed_from_its_group_is_fenced(kafka_bootstrap: str, fresh: Fresh) -> None:
    with contextlib.closing(connect(kafka_bootstrap)) as log:
        topic, group = _made(log, fresh("orders")), fresh("group")
        write(log, topic, 0, [1])
        consumer, producer = log.consumer(group, topic, instance="worker-1"), log.producer(fresh("writer"))
        assigned(consumer)
        consumer.seek(0, 0)
        polled(consumer, 1)
        assert [member.name for member in log.members(group)] == ["worker-1"]
        log.remove_member(group, "worker-2")
        assert log.members(group)
        log.remove_member(group, "worker-1")
        assert not log.members(group)
        producer.begin()
        producer.send(topic, 0, b"k", b"2")
        with pytest.raises(ConsumerFenced):
            producer.commit({0: Commit(1)}, consumer)
        producer.abort()
        with pytest.raises(ConsumerFenced):
            consumer.commit({0: Commit(1)})
        assert not consumer.committed([0])
        assert numbers(read(log, topic)) == [1]


def test_a_member_that_was_removed_and_joins_again_is_told_what_it_lost(kafka_bootstrap: str, fresh: Fresh) -> None:
    """Also if it hears of it only as it joins: it must not go on from where it was."""
    with contextlib.closing(connect(kafka_bootstrap)) as log:
        topic, group = _made(log, fresh("orders")), fresh("group")
        consumer = log.consumer(group, topic, instance="worker-1")
        assigned(consumer)
        consumer.seek(0, 0)
        log.remove_member(group, "worker-1")
        if isinstance(consumer, kafka_member.KafkaGroupConsumer):
            consumer._coordinator.request_rejoin()  # as after a heartbeat while another member joins
        revoked, again = set[int](), set[int]()

        def is_assigned_again() -> bool:
            poll = consumer.poll(0.05, 1)
            revoked.update(poll.revoked)
            again.update(poll.assigned)
            return again == {0}

        until(is_assigned_again)
        assert revoked == {0}


def test_a_member_that_is_closed_as_it_joins_leaves_at_once(kafka_server: tuple[str, Path], fresh: Fresh) -> None:
    """librdkafka's request to leave waits behind the one to join, which waits for a member that does not poll."""
    address, (python, fast) = kafka_server[0], (KafkaSettings(client=each) for each in ("kafka-python", "librdkafka"))
    with contextlib.closing(connect(address, python)) as other, contextlib.closing(connect(address, fast)) as log:
        topic, group = _made(log, fresh("orders")), fresh("group")
        assigned(other.consumer(group, topic, instance="idle"))
        joining = log.consumer(group, topic, instance="joining")

        def waits_for_the_other() -> bool:
            joining.poll(0.0, 1)
            return len(log.members(group)) == 2

        until(waits_for_the_other)
        began = time.monotonic()
        joining.close()
        until(lambda: [member.name for member in log.members(group)] == ["idle"])
        assert time.monotonic() - began < 5


def test_partitions_added_later(kafka_bootstrap: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(python_client.CONSUMER, "metadata_max_age_ms", 200)
    monkeypatch.setitem(rdkafka_config.CONSUMER, "topic.metadata.refresh.interval.ms", 200)
    monkeypatch.setattr(kafka_member, "SLICE", 0.002)  # the client would forget a rebalance that outlasts its poll
    with contextlib.closing(connect(kafka_bootstrap)) as log:
        topic = _made(log, fresh("orders"))
        consumer = log.consumer(fresh("group"), topic)
        owned = assigned(consumer)
        with KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
            admin.create_partitions({topic: 3})
        owned |= assigned(consumer, 2)
        assert owned == {0, 1, 2}


def test_bounds_count_open_transactions(kafka_bootstrap: str, fresh: Fresh) -> None:
    with contextlib.closing(connect(kafka_bootstrap)) as log:
        topic, producer = _made(log, fresh("orders")), log.producer(fresh("writer"))
        producer.begin()
        producer.send(topic, 0, b"k", b"1")
        producer.flush()
        assert log.bounds(topic)[0].end == 1
        producer.close()  # aborts
        assert read(log, topic, stop=log.bounds(topic)[0].end) == []


CLAIM = """
import sys
from pipeline.log.connect import connect
member = connect(sys.argv[1]).consumer("g", "orders")
print(member.poll(5, 1).assigned, flush=True)
sys.stdin.read()
"""


def test_partitions_of_a_killed_process_become_free(tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path / 'new' / 'folder' / 'log.db'}"
    with contextlib.closing(connect(address)) as log:
        log.create_topic("orders", 2)
        consumer = log.consumer("g", "orders")
        command = [sys.executable, "-c", CLAIM, address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "(0, 1)\n"
            assert consumer.poll(0.3, 1).assigned == ()
            process.kill()
        assert consumer.poll(5, 1).assigned == (0, 1)


def test_a_consumer_whose_claim_was_taken_is_fenced(tmp_path: Path) -> None:
    with contextlib.closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        log.create_topic("orders", 1)
        first, second, producer = log.consumer("g", "orders"), log.consumer("g", "orders"), log.producer("w")
        assert assigned(first) == {0}
        shutil.rmtree(tmp_path / "log.db.locks")
        (tmp_path / "log.db.locks").mkdir()
        assert assigned(second) == {0}
        with pytest.raises(ConsumerFenced):
            first.commit({0: Commit(1)})
        producer.begin()
        producer.send("orders", 0, b"k", b"1")
        with pytest.raises(ConsumerFenced):
            producer.commit({0: Commit(1)}, first)
        assert not second.committed([0])
        assert log.bounds("orders") == {0: Bounds(0, 0)}


@pytest.mark.parametrize("address", ["", "kafka", "host:port", "host:0", ":9092", "http://host:9092", "sqlite:"])
def test_bad_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="sqlite:"):
        connect(address)


def test_no_broker_at_the_address() -> None:
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1\b.*refused"):
        connect("127.0.0.1:1,127.0.0.1:2")


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, and long enough to be seen as none " * 40)
    with pytest.raises(LogError, match="text: file is not a database"):
        connect(f"sqlite:{tmp_path / 'text'}")
    with pytest.raises(LogError, match="Not a directory"):
        connect(f"sqlite:{tmp_path / 'text' / 'log.db'}")
