"""What tells a topic from another, what it takes, and reading of several partitions at once: on both logs."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from waiting import until

from pipeline.log import Bounds, EventLog
from pipeline.log.connect import connect
from pipeline.log.kafka import client as python_client
from pipeline.log.kafka.rdkafka import config as rdkafka_config
from tidecast.errors import LogError, UnknownTopic

Fresh = Callable[[str], str]
START = 1_700_000_000_000


def delete(address: str, topic: str) -> None:
    if not address.startswith("sqlite:"):
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            admin.delete_topics([topic])
        return
    with closing(sqlite3.connect(address.removeprefix("sqlite:"))) as connection, connection:
        connection.execute("DELETE FROM topics WHERE name = ?", (topic,))
        connection.execute("DELETE FROM partitions WHERE topic = ?", (topic,))


def test_topics_are_listed(log: EventLog, fresh: Fresh) -> None:
    names = {fresh("listed"), fresh("listed")}
    for name in names:
        log.create_topic(name, 1)
    found = log.topics()
    assert names <= set(found)
    assert found == sorted(found)
    assert not [name for name in found if name.startswith("__")]


def test_identities_are_those_of_the_topics_that_exist(log: EventLog, log_address: str, fresh: Fresh) -> None:
    one, two = fresh("one"), fresh("two")
    log.create_topic(one, 1)
    log.create_topic(two, 3)
    found = log.identities([one, two, fresh("missing")])
    assert {name: each.partitions for name, each in found.items()} == {one: 1, two: 3}
    assert found[one].id == log.topic_id(one) != found[two].id
    delete(log_address, one)
    until(lambda: log.identities([one, two]).keys() == {two})
    until(lambda: bool(log.create_topic(one, 1)) and one in log.identities([one]))
    assert log.identities([one])[one].id != found[one].id


def test_a_file_that_was_deleted_or_replaced_has_no_topics(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(connect(f"sqlite:{path}")) as log:
        log.create_topic("orders", 1)
        assert log.identities(["orders"])
        path.unlink()
        assert log.identities(["orders"]) == {}
        with closing(connect(f"sqlite:{path}")) as other:
            other.create_topic("orders", 1)
            assert log.identities(["orders"]) == {}
            assert other.identities(["orders"])


def test_a_topic_that_was_deleted_from_a_file(tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path / 'log.db'}"
    with closing(connect(address)) as log:
        log.create_topic("orders", 1)
        producer, consumer = log.producer(), log.consumer("group", "orders")
        assert consumer.poll(0, 1).assigned == (0,)
        consumer.seek(0, 0)
        producer.send("orders", 0, b"k", b"1")
        delete(address, "orders")
        with pytest.raises(UnknownTopic, match="orders"):
            producer.flush()
        with pytest.raises(UnknownTopic, match="orders"):
            consumer.poll(0, 1)


def test_a_topic_is_not_created_by_those_who_used_it(
    kafka_bootstrap: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a consumer nor a producer brings it back when it refreshes what it knows of the cluster."""
    for settings in (python_client.CONSUMER, python_client.PRODUCER):
        monkeypatch.setitem(settings, "metadata_max_age_ms", 100)
    for settings in (rdkafka_config.CONSUMER, rdkafka_config.PRODUCER):
        monkeypatch.setitem(settings, "topic.metadata.refresh.interval.ms", 100)
    with closing(connect(kafka_bootstrap)) as log:
        topic = fresh("orders")
        log.create_topic(topic, 1)
        producer, consumer = log.producer(), log.consumer(fresh("group"), topic)
        producer.send(topic, 0, b"k", b"1")
        producer.flush()
        until(lambda: bool(consumer.poll(0.1, 1).assigned))
        delete(kafka_bootstrap, topic)
        until(lambda: not log.identities([topic]))
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:  # ten refreshes of either
            try:
                consumer.poll(0.1, 1)
            except LogError:
                break
        assert not log.identities([topic])


def test_partitions_are_read_at_once(log: EventLog, fresh: Fresh) -> None:
    topic, size = fresh("orders"), 100_000
    log.create_topic(topic, 4)
    with closing(log.producer(fresh("writer"))) as producer:
        producer.begin()
        for value in range(400):
            producer.send(topic, value % 4, b"k", b"%d" % value)
        producer.send(topic, 0, b"k", b"x" * size)
        producer.commit({}, started(log, fresh("group"), topic))
    bounds = log.bounds(topic)
    ranges = {0: bounds[0], 1: Bounds(50, 60), 2: Bounds(7, 7), 3: bounds[3]}
    found: dict[int, list[bytes]] = {}
    for batch in log.read_partitions(topic, ranges, whole=True):
        assert len({record.partition for record in batch}) == 1
        found.setdefault(batch[0].partition, []).extend(record.value or b"" for record in batch)
    assert found[0] == [*(b"%d" % value for value in range(0, 400, 4)), b"x" * size]
    assert found[1] == [b"%d" % value for value in range(1, 400, 4)][50:60]
    assert found[3] == [b"%d" % value for value in range(3, 400, 4)]
    assert found.keys() == {0, 1, 3}


def started(log: EventLog, group: str, topic: str):  # type: ignore[no-untyped-def]
    consumer = log.consumer(group, topic)
    until(lambda: bool(consumer.poll(0.5, 1).assigned))
    return consumer


def test_a_topic_for_any_time_takes_any(kafka_bootstrap: str, fresh: Fresh) -> None:
    plain, any_time = fresh("plain"), fresh("any")
    with closing(connect(kafka_bootstrap)) as log:
        log.create_topic(plain, 1)
        log.create_topic(any_time, 1, any_time=True)
        assert (log.topic_config(any_time).oldest_ms, log.topic_config(any_time).ahead_ms) == (None, None)
        assert log.topic_config(plain).ahead_ms == 3_600_000
        with closing(log.producer()) as producer:
            for time_ms in (0, int(time.time() * 1000) + 86_400_000):
                producer.send(any_time, 0, b"k", b"v", timestamp=time_ms)
            producer.flush()
        with closing(log.producer()) as producer:
            producer.send(plain, 0, b"k", b"v", timestamp=int(time.time() * 1000) + 86_400_000)
            with pytest.raises(LogError, match=f"{plain}/0"):
                producer.flush()


def test_the_times_that_a_topic_takes(kafka_bootstrap: str, fresh: Fresh) -> None:
    limited, appended = fresh("limited"), fresh("appended")
    limits = {"message.timestamp.before.max.ms": "60000", "message.timestamp.after.max.ms": "5000"}
    with KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
        admin.create_topics({limited: {"num_partitions": 1, "configs": limits}})
        settings = limits | {"message.timestamp.type": "LogAppendTime"}
        admin.create_topics({appended: {"num_partitions": 1, "configs": settings}})
    with closing(connect(kafka_bootstrap)) as log:
        found = log.topic_config(limited)
        assert (found.append_time, found.oldest_ms, found.ahead_ms) == (False, 60_000, 5_000)
        found = log.topic_config(appended)
        assert (found.append_time, found.oldest_ms, found.ahead_ms) == (True, None, None)
