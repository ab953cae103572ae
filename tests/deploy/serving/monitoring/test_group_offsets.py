"""Where a group stands, as the broker has it: also while nobody gets on, and while it does not answer."""

from collections.abc import Callable
from contextlib import closing

import pytest
from waiting import until

from deploy.serving.monitoring import group_offsets
from deploy.serving.monitoring.group_offsets import GroupOffsets, OffsetWatch
from pipeline.log import Commit, EventLog
from pipeline.log.connect import connect
from pipeline.log.settings import KafkaSettings


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked at short intervals."""
    monkeypatch.setattr(group_offsets, "EVERY_S", 0.05)


def send(log: EventLog, topic: str, count: int) -> None:
    with closing(log.producer()) as producer:
        for _ in range(count):
            producer.send(topic, 0, b"k", b"v")
        producer.flush()


def test_the_lag_grows_while_the_group_stands_still(
    log: EventLog, log_address: str, fresh: Callable[[str], str]
) -> None:
    topic, group, offsets = fresh("lag"), fresh("group"), GroupOffsets()
    log.create_topic(topic, 2)
    send(log, topic, 3)
    with closing(OffsetWatch(lambda: connect(log_address), group, topic, offsets)):
        until(lambda: offsets.known)
        assert (offsets.ends, offsets.committed, offsets.lag) == ({0: 3, 1: 0}, {}, {}), "nothing is committed yet"
        with closing(log.consumer(group, topic)) as consumer:
            assigned: set[int] = set()
            until(lambda: {0, 1} <= assigned, meanwhile=lambda: assigned.update(consumer.poll(0.1, 10).assigned))
            consumer.commit({0: Commit(1), 1: Commit(0)})
        until(lambda: offsets.lag == {0: 2, 1: 0})
        send(log, topic, 5)
        until(lambda: offsets.lag == {0: 7, 1: 0})
    assert offsets.errors == 0


def test_a_broker_that_does_not_answer_leaves_no_old_lag(
    caplog: pytest.LogCaptureFixture, kafka_bootstrap: str, fresh: Callable[[str], str]
) -> None:
    topic, group, offsets = fresh("lag"), fresh("group"), GroupOffsets()
    with closing(connect(kafka_bootstrap)) as log:
        log.create_topic(topic, 1)
    addresses = ["127.0.0.1:1"]
    quick = KafkaSettings(request_s=0.5, delivery_s=0.5)
    with caplog.at_level("INFO"), closing(OffsetWatch(lambda: connect(addresses[0], quick), group, topic, offsets)):
        until(lambda: offsets.errors > 1)
        assert not offsets.known
        addresses[0] = kafka_bootstrap
        until(lambda: offsets.known)
    said = [each.message for each in caplog.records if each.name == group_offsets.__name__]
    assert len(said) == 2, "once, and once when it is over"
    assert said[0].startswith(f"the lag of {group} is not known: ")
    assert said[1] == f"the lag of {group} can be asked for again"
