"""A service's topics: what is refused before it starts, and what it notices while it runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from waiting import PATIENCE_S, until

from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.serving import loop, topics
from deploy.serving.loop import Service
from deploy.serving.tasks import task_for
from deploy.serving.topics import TopicWatch, create_topics, problems
from deploy.settings.serve import Guarantee, ServeConfig
from pipeline.formats.events import Event, encode
from pipeline.log import EventLog, Record
from pipeline.log.connect import connect
from pipeline.log.settings import KafkaSettings
from pipeline.log.topics import TopicConfig
from pipeline.state.checkpoint import PART_BYTES
from tidecast.errors import ConfigError, StateMismatch, UnknownTopic

Fresh = Callable[[str], str]
START, HOUR, DAY = 1_704_067_200_000, 3_600_000, 86_400_000
CONFIG = ServeConfig(topic="in", output="out", group="g", instance="a", late_topic="late")
PLAIN = TopicConfig(False, 7 * DAY, None, 1, 1, 1_048_588, 1, ahead_ms=HOUR)
STATE = PLAIN._replace(compacted=True, retention_ms=None, append_time=True, ahead_ms=None)
GOOD = {"in": PLAIN, "out": PLAIN, "late": PLAIN, "g-dead-letters": PLAIN, "g-state": STATE}


@pytest.mark.parametrize(
    ("topic", "changed", "found", "todo"),
    [
        ("in", {"compacted": True}, "in is compacted: events vanish", "cleanup.policy to delete, or copy"),
        ("g-dead-letters", {"compacted": True}, "loses dead letters", "cleanup.policy to delete"),
        ("late", {"compacted": True}, "late is compacted: it loses", "cleanup.policy to delete"),
        ("g-state", {"compacted": False}, "g-state is not compacted", "cleanup.policy to compact"),
        ("g-state", {"retention_ms": DAY}, "deletes old records too", "compact, without delete"),
        ("g-state", {"max_message_bytes": 4000}, "takes records of up to 4,000 bytes", "max.message.bytes to 8192"),
        ("out", {"max_message_bytes": 4999}, "and a forecast has up to 5,000", "max.message.bytes to 10000"),
        ("g-dead-letters", {"max_message_bytes": 100_000}, "is kept there has up to 200,704", "max.message.bytes to"),
        ("out", {"oldest_ms": 7 * DAY}, "out takes times of up to 7 d before a record's arrival, and in any", "before"),
        ("late", {"ahead_ms": 60_000}, "up to 1 m ahead of a record's arrival, and in up to 1 h", "after.max.ms to"),
    ],
)
def test_what_cannot_work_is_refused(topic: str, changed: dict[str, Any], found: str, todo: str) -> None:
    assert not [each for name, good in GOOD.items() for each in problems(CONFIG, 5000, name, good, PLAIN)]
    (problem,) = problems(CONFIG, 5000, topic, GOOD[topic]._replace(**changed), PLAIN)
    assert found in problem.found
    assert todo in problem.todo


def test_columnar_forecasts_have_no_key_and_so_no_compacted_topic() -> None:
    (problem,) = problems(replace(CONFIG, format="arrow"), 5000, "out", PLAIN._replace(compacted=True), PLAIN)
    assert "rejects columnar forecasts" in problem.found
    assert "cleanup.policy to delete" in problem.todo


@pytest.mark.parametrize(
    ("source", "topic", "changed"),
    [
        (PLAIN._replace(oldest_ms=DAY), "out", {"oldest_ms": DAY}),  # a policy of the whole cluster
        (PLAIN._replace(append_time=True, ahead_ms=None), "out", {"oldest_ms": DAY, "ahead_ms": 0}),
        (PLAIN, "out", {"ahead_ms": None}),
        (PLAIN, "out", {"compacted": True}),  # a warning of check
        (PLAIN._replace(max_message_bytes=50_000), "late", {"max_message_bytes": 50_000}),
        (None, "out", {"oldest_ms": DAY}),  # without permission to read the input's
    ],
)
def test_what_can_work_is_not_refused(source: TopicConfig | None, topic: str, changed: dict[str, Any]) -> None:
    assert not list(problems(CONFIG, 5000, topic, PLAIN._replace(**changed), source))


class Running:
    """A service in a thread, on a topic with two partitions and a series in the first."""

    def __init__(self, address: str, predictor: Predictor, config: ServeConfig) -> None:
        self.address, self.config, self._predictor = address, config, predictor
        self.log: EventLog = connect(address)
        self.log.create_topic(config.topic, 2)
        self._hours = 0
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread()

    def start(self) -> None:
        self.error = None
        self._stop.clear()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        quick = None if self.address.startswith("sqlite:") else KafkaSettings(request_s=3, delivery_s=3)
        with closing(connect(self.address, quick)) as log:
            try:
                service = Service(log, self._predictor, task_for(self._predictor, self.config), self.config)
                service.run(self._stop)
            except Exception as error:
                self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def write(self, hours: int) -> None:
        with closing(self.log.producer()) as producer:
            for hour in range(self._hours, self._hours + hours):
                producer.send(self.config.topic, 0, b"pump", encode(Event("pump", START + hour * HOUR, (hour,))))
            producer.flush()
        self._hours += hours

    def forecasts(self) -> int:
        """How many there are; 0 without a topic."""
        try:
            bounds = self.log.bounds(self.config.output)
        except UnknownTopic:
            return 0
        return sum(1 for batch in self.log.read(self.config.output, 0, *bounds[0]) for _ in batch)

    def failure(self) -> Exception:
        """The error that the service ends with by itself."""
        self._thread.join(PATIENCE_S)
        assert self.error is not None
        return self.error

    def delete(self, topic: str) -> None:
        with KafkaAdminClient(bootstrap_servers=self.address) as admin:
            admin.delete_topics([topic])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "REPORT_S", 0.2)
    monkeypatch.setattr(topics, "CONFIRM_S", 0.1)


@pytest.fixture(scope="module")
def predictor(own_model: Path) -> Predictor:
    return load_onnx(own_model, "tiny.onnx", "cpu")


@pytest.fixture(params=["at-least-once", "exactly-once"])
def running(
    request: pytest.FixtureRequest, kafka_bootstrap: str, predictor: Predictor, fresh: Fresh
) -> Iterator[Running]:
    topic = fresh("power")
    names: dict[str, Any] = {"topic": topic, "output": f"{topic}-out", "late_topic": f"{topic}-late"}
    config = ServeConfig(**names, group=f"{topic}-g", instance="a", guarantee=request.param)
    running = Running(kafka_bootstrap, predictor, config)
    yield running
    running.stop()
    running.log.close()


def begun(running: Running) -> Running:
    """A service with a full window."""
    running.start()
    running.write(12)
    until(lambda: running.forecasts() == 1)
    return running


@pytest.mark.parametrize("which", ["topic", "output", "dead_letters", "late_topic"])
def test_a_topic_deleted_while_it_is_in_use_ends_the_service(running: Running, which: str) -> None:
    """Dead letters and late events have not been written to at all; what came of none is created again by nobody."""
    topic = getattr(begun(running).config, which)
    running.delete(topic)
    if which == "output":
        running.write(1)
    failure = running.failure()
    assert isinstance(failure, UnknownTopic | StateMismatch)
    assert f"topic {topic} was deleted while this service used it" in str(failure)
    assert not running.log.identities([topic])
    if which != "topic":
        running.start()
        until(lambda: bool(running.log.identities([topic])))
        running.write(1)
        until(lambda: running.forecasts() >= 1)


@pytest.mark.parametrize("which", ["output", "dead_letters", "late_topic"])
def test_a_topic_made_anew_ends_the_service(running: Running, which: str) -> None:
    topic = getattr(begun(running).config, which)
    with KafkaAdminClient(bootstrap_servers=running.address) as admin:
        admin.delete_topics([topic])
        admin.create_topics({topic: {"num_partitions": 2}})
    assert f"topic {topic} was deleted" in str(running.failure())


@pytest.mark.parametrize("anew", [False, True])
def test_a_lost_state_topic_is_written_again_as_a_whole(running: Running, anew: bool) -> None:
    state = begun(running).config.state_topic
    before = running.log.topic_id(state)
    running.delete(state)
    if anew:
        with KafkaAdminClient(bootstrap_servers=running.address) as admin:
            configs = {"cleanup.policy": "compact"}
            until(lambda: not running.log.identities([state]) or running.log.topic_id(state) != before)
            if not running.log.identities([state]):
                admin.create_topics({state: {"num_partitions": 2, "configs": configs}})
    until(lambda: state in (found := running.log.identities([state])) and found[state].id != before)
    until(lambda: running.log.bounds(state)[0].end > 0)
    running.stop()
    assert running.error is None
    running.start()
    running.write(1)
    until(lambda: running.forecasts() == 2)  # the window is the one from before


def test_parts_of_a_state_fit_into_a_topic_made_anew(kafka_bootstrap: str, fresh: Fresh) -> None:
    config = ServeConfig(topic=fresh("power"), output=fresh("out"), group=fresh("g"), instance="a")
    with closing(connect(kafka_bootstrap)) as log, KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
        log.create_topic(config.topic, 1)
        watch = TopicWatch(log, config, 5000, create_topics(log, config, 5000))
        assert watch.part_bytes == PART_BYTES
        admin.delete_topics([config.state_topic])
        until(lambda: not log.identities([config.state_topic]))
        settings = {"cleanup.policy": "compact", "max.message.bytes": "4096"}
        admin.create_topics({config.state_topic: {"num_partitions": 1, "configs": settings}})
        until(watch.has_lost_state)
        assert watch.part_bytes == 3072


def test_a_part_of_a_checkpoint_is_refused(running: Running) -> None:
    """A pass that is written to a topic made anew, by a service that did not know, and ended before it did."""
    state = begun(running).config.state_topic
    running.stop()
    kept = records(running, state)
    running.delete(state)
    until(lambda: not running.log.identities([state]))
    running.log.create_topic(state, 2, compacted=True)
    with closing(running.log.producer()) as producer:
        for record in kept:
            if record.key == b"partition":
                producer.send(state, record.partition, record.key, record.value)
        producer.flush()
    running.start()
    failure = running.failure()
    assert isinstance(failure, StateMismatch)
    assert "it is a part only: the topic was made anew" in str(failure)
    assert "Use another group; or reset this one" in str(failure)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_file_that_is_gone_ends_the_service(tmp_path: Path, predictor: Predictor, replaced: bool) -> None:
    path = tmp_path / "log.db"
    config = ServeConfig(topic="power", output="out", group="g", instance="a")
    running = begun(Running(f"sqlite:{path}", predictor, config))
    path.rename(tmp_path / "elsewhere.db")
    if replaced:
        connect(f"sqlite:{path}").close()
    assert "topic power was deleted while this service used it" in str(running.failure())
    running.log.close()


def test_a_state_topic_that_cannot_be_used_is_refused(running: Running) -> None:
    with KafkaAdminClient(bootstrap_servers=running.address) as admin:
        admin.create_topics({running.config.state_topic: {"num_partitions": 2}})
    running.start()
    failure = running.failure()
    assert isinstance(failure, ConfigError)
    assert "is not compacted" in str(failure)
    assert "set its cleanup.policy to compact" in str(failure)


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_records_that_an_output_refuses(
    kafka_bootstrap: str, predictor: Predictor, fresh: Fresh, guarantee: Guarantee
) -> None:
    """Topics whose limits are changed while a service runs: every forecast is there, or a dead letter for it."""
    topic = fresh("power")
    config = ServeConfig(topic=topic, output=f"{topic}-out", group=f"{topic}-g", instance="a", guarantee=guarantee)
    running = begun(Running(kafka_bootstrap, predictor, config))
    limits = {config.output: {"max.message.bytes": "300"}, config.dead_letters: {"max.message.bytes": "600"}}
    alter(kafka_bootstrap, limits)
    running.write(2)
    with closing(running.log.producer()) as producer:
        producer.send(topic, 1, b"pump", b"x" * 2000)
        producer.flush()
    until(lambda: len(letters(running)) == 3)
    alter(kafka_bootstrap, {config.output: {"max.message.bytes": "100000", "message.timestamp.before.max.ms": "60000"}})
    began = int(time.time() * 1000)
    with closing(running.log.producer()) as producer:
        event = encode(Event("pump", START + 14 * HOUR, (1.0,)))
        producer.send(topic, 0, b"pump", event, timestamp=START + 14 * HOUR)
        producer.flush()
    until(lambda: running.forecasts() == 2)
    running.stop()
    assert running.error is None
    found = letters(running)
    assert [each["tidecast.reason"] for each in found] == [b"refused", b"refused", b"malformed_json"]
    assert [each["tidecast.offset"] for each in found[:2]] == [b"12", b"13"]
    assert f"{config.output}/0 refuses its".encode() in found[0]["tidecast.detail"]
    assert records(running, config.output)[-1].timestamp >= began
    running.log.close()


def alter(address: str, settings: dict[str, dict[str, str]]) -> None:
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        admin.alter_configs([ConfigResource("topic", topic, configs) for topic, configs in settings.items()])


def letters(running: Running) -> list[dict[str, bytes]]:
    """The headers of all dead letters, by partition."""
    return [dict(record.headers) for record in records(running, running.config.dead_letters)]


def records(running: Running, topic: str) -> list[Record]:
    """A topic's records, by partition."""
    bounds, read = running.log.bounds(topic), running.log.read
    return [record for number in bounds for batch in read(topic, number, *bounds[number]) for record in batch]
