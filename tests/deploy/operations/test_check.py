"""`tidecast check`: each problem of a configuration is found before a service starts."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kafka import KafkaAdminClient
from waiting import PATIENCE_S

from deploy.operations.findings import Finding, order, replication, spacing, values
from deploy.operations.sample import Sample
from model.card import Card, InputSpec, OutputSpec
from pipeline.formats.events import Event, encode
from pipeline.log import Commit, EventLog, Record
from pipeline.log.connect import connect
from pipeline.log.topics import TopicConfig
from pipeline.state.records import encode_metadata
from pipeline.windows.grid import WindowConfig

Fresh = Callable[[str], str]
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
UntilWritten = Callable[..., list[Record]]

START = 1_704_067_200_000
MINUTE, HOUR = 60_000, 3_600_000


class Check:
    """Runs `tidecast check` for a model of hourly steps on a topic with two partitions."""

    def __init__(self, log: EventLog, run: Run, address: str, topic: str, model: Path) -> None:
        self.log, self.address, self.topic, self.group, self.model = log, address, topic, f"{topic}-group", model
        self._run = run

    def write(self, series: str, hours: Sequence[float], partition: int = 0, key: bytes | None = b"") -> None:
        with closing(self.log.producer()) as producer:
            for hour in hours:
                event = Event(series, START + round(hour * HOUR), (hour,))
                producer.send(self.topic, partition, series.encode() if key == b"" else key, encode(event))
            producer.flush()

    def __call__(self, *arguments: object, code: int = 0) -> dict[str, list[Finding]]:
        """The findings, by what they are about."""
        where = ("--topic", self.topic, "--model", self.model, "--bootstrap", self.address, "--group", self.group)
        ended = self._run("check", *where, "--json", *arguments)
        assert ended.returncode == code, ended.stdout + ended.stderr
        findings = [Finding(**finding) for finding in json.loads(ended.stdout)["findings"]]
        assert (code == 78) == any(finding.verdict == "wrong" for finding in findings)
        return {
            about: [each for each in findings if each.about == about] for about in {each.about for each in findings}
        }


@pytest.fixture
def check(log_address: str, tidecast: Run, fresh: Fresh, own_model: Path) -> Iterator[Check]:
    with closing(connect(log_address)) as log:
        yield Check(log, tidecast, log_address, fresh("power"), own_model)


@pytest.fixture
def on_kafka(kafka_bootstrap: str, tidecast: Run, fresh: Fresh, own_model: Path) -> Iterator[Check]:
    with closing(connect(kafka_bootstrap)) as log:
        yield Check(log, tidecast, kafka_bootstrap, fresh("power"), own_model)


def create_topic(check: Check, topic: str, partitions: int = 2, **settings: object) -> None:
    """Create a topic on Kafka with these configs."""
    configs = {name.replace("_", "."): str(value) for name, value in settings.items()}
    with KafkaAdminClient(bootstrap_servers=check.address) as admin:
        admin.create_topics({topic: {"num_partitions": partitions, "configs": configs}})


def assert_finding(findings: Sequence[Finding], verdict: str, text: str) -> None:
    """At least one of the findings has this verdict and contains this text."""
    assert [finding for finding in findings if finding.verdict == verdict and text in finding.found], findings


def test_valid_configuration_has_only_ok_findings(check: Check, tidecast: Run) -> None:
    check.log.create_topic(check.topic, 2)
    check.write("pump", range(30))
    check.write("valve", range(30), partition=1)
    found = check()
    assert {finding.verdict for findings in found.values() for finding in findings} == {"ok"}
    items = {
        "log",
        "home",
        "model",
        "topic",
        "topics",
        "state",
        "retention",
        "records",
        "fields",
        "keys",
        "order",
        "freq",
        "memory",
    }
    assert set(found) == items
    read = "series from `series`; time from `ts`, epoch milliseconds; value from `value`"
    assert_finding(found["fields"], "ok", read)
    assert_finding(found["state"], "ok", "is new")
    assert_finding(found["topics"], "ok", f"{check.topic}-forecasts will be created with 2 partitions")
    assert_finding(found["model"], "ok", "tiny.onnx on cpu")

    ended = tidecast("check", "--topic", check.topic, "--model", check.model, "--bootstrap", check.address)
    assert (ended.returncode, ended.stderr) == (0, "nothing wrong, no warnings\n")
    assert f"ok       topic        {check.topic} has 2 partitions" in ended.stdout.splitlines()


def test_the_memory_of_the_series_is_said_and_too_many_are_warned_of(check: Check) -> None:
    check.log.create_topic(check.topic, 2)
    for number in range(3):
        check.write(f"pump-{number}", range(30), partition=number % 2)
    assert_finding(check()["memory"], "ok", "3 series: up to ")
    assert_finding(
        check("--series-limit", 10**9)["memory"], "warning", "; at --series-limit (1,000,000,000 x 2 partitions): "
    )


def test_empty_topic_is_ok(check: Check) -> None:
    check.log.create_topic(check.topic, 1)
    assert_finding(check()["records"], "ok", "none yet")


def test_missing_topic_and_missing_model_are_both_found(check: Check) -> None:
    check.model = Path("none.onnx")
    found = check(code=78)
    assert_finding(found["model"], "wrong", "none.onnx: there is no such file")
    assert_finding(found["topic"], "wrong", check.topic)


def test_printed_finding_says_what_to_do(check: Check, tidecast: Run) -> None:
    ended = tidecast("check", "--topic", check.topic, "--model", check.model, "--bootstrap", check.address)
    assert ended.returncode == 78
    assert ended.stderr == "1 wrong, no warnings\n"
    assert ended.stdout.splitlines()[-1].endswith("-> create it, or fill it with tidecast ingest")


def test_unreachable_log_exits_with_75(tidecast: Run, own_model: Path) -> None:
    ended = tidecast("check", "--topic", "power", "--model", own_model, "--bootstrap", "127.0.0.1:1")
    assert ended.returncode == 75


def test_compacted_input_is_rejected(check: Check, tidecast: Run) -> None:
    check.log.create_topic(check.topic, 1, compacted=True)
    assert_finding(check(code=78)["topics"], "wrong", f"{check.topic} is compacted")
    ended = tidecast("serve", "--topic", check.topic, "--model", check.model, "--bootstrap", check.address)
    assert ended.returncode == 78
    assert f"tidecast: {check.topic} is compacted: events vanish" in ended.stderr


def test_existing_topics_must_match(check: Check) -> None:
    check.log.create_topic(check.topic, 2)
    check.log.create_topic(f"{check.topic}-forecasts", 1, compacted=True)
    check.log.create_topic(f"{check.group}-state", 2)
    check.log.create_topic(f"{check.group}-dead-letters", 2, compacted=True)
    check.log.create_topic(f"{check.topic}-late", 1)
    found = check("--late-topic", f"{check.topic}-late", code=78)["topics"]
    assert_finding(found, "wrong", f"{check.topic}-late has 1 partition, and {check.topic} 2")
    assert_finding(found, "wrong", f"{check.topic}-forecasts has 1 partition, and {check.topic} 2")
    assert_finding(found, "warning", f"{check.topic}-forecasts is compacted")
    assert_finding(found, "wrong", f"{check.group}-state is not compacted")
    assert_finding(found, "wrong", f"{check.group}-dead-letters is compacted")


@pytest.mark.parametrize(
    ("settings", "code", "verdict", "text"),
    [
        ({"retention_ms": 20_000}, 78, "wrong", "kept for 20 s, and a checkpoint is written every 30 s"),
        ({"retention_ms": 30 * MINUTE}, 0, "warning", "kept for 30 m: a service that is down for longer"),
        ({"retention_ms": 30 * MINUTE}, 0, "warning", "kept for 30 m, and the model looks back 12 h"),
        ({"retention_ms": 5 * HOUR}, 0, "warning", "kept for 5 h, and the model looks back 12 h"),
        ({"retention_ms": 13 * HOUR}, 0, "ok", "kept for 13 h"),
        ({"retention_ms": -1}, 0, "ok", "everything is kept"),
        ({"retention_ms": -1, "retention_bytes": 500}, 0, "warning", "kept for about 6."),
    ],
)
def test_retention(on_kafka: Check, settings: dict[str, int], code: int, verdict: str, text: str) -> None:
    create_topic(on_kafka, on_kafka.topic, **settings)
    on_kafka.write("pump", range(30))
    assert_finding(on_kafka(code=code)["retention"], verdict, text)


def test_group_state_must_match_the_model(
    check: Check,
    start_tidecast: Start,
    until_written: UntilWritten,
    foreign_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check.log.create_topic(check.topic, 1)
    check.write("pump", range(20))
    serve = ("serve", "--topic", check.topic, "--group", check.group, "--bootstrap", check.address)
    service = start_tidecast(*serve, "--model", check.model)
    until_written(check.log, f"{check.topic}-forecasts", 9, service)
    service.terminate()
    _, err = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0, err
    ends = check.log.bounds(f"{check.group}-state")
    assert_finding(check()["state"], "ok", f"the state in {check.group}-state matches")
    assert check.log.bounds(f"{check.group}-state") == ends, "check writes nothing"

    stale = [{0: Commit(5, encode_metadata(5))}]  # as read before a service at work wrote its checkpoint
    committed = type(check.log).committed
    with monkeypatch.context() as patch:
        patch.setattr(type(check.log), "committed", lambda log, *of: stale.pop() if stale else committed(log, *of))
        assert_finding(check()["state"], "ok", "matches")
        assert not stale
    check.model = foreign_model
    assert_finding(check(code=78)["state"], "wrong", "written with another seq_len, freq")


def test_committed_offsets_without_a_state_topic(check: Check) -> None:
    check.log.create_topic(check.topic, 1)
    with closing(check.log.consumer(check.group, check.topic)) as consumer:
        while not consumer.poll(0.5, 1).assigned:
            pass
        consumer.commit({0: Commit(0)})
    assert_finding(check(code=78)["state"], "wrong", f"{check.group}-state is gone")


def test_problems_of_the_newest_records(check: Check) -> None:
    check.log.create_topic(check.topic, 2)
    check.write("pump", [*range(12), 3.5], key=None)
    check.write("pump", range(12, 14), partition=1)
    with closing(check.log.producer()) as producer:
        producer.send(check.topic, 0, b"pump", b"{")
        producer.flush()
    found = check(code=78)
    assert_finding(found["records"], "warning", "1 of the newest 16 are invalid: 1 malformed_json")
    assert_finding(found["keys"], "warning", "13 of 16 have no key")
    assert_finding(
        found["keys"], "wrong", "1 of 1 series are in several partitions, with a part of their window in each: pump"
    )
    assert_finding(found["order"], "warning", "1 of 15 events are late, by up to 7.5 h")
    assert found["order"][0].todo == "--lateness 8h would wait for all of these"
    assert_finding(check("--lateness", "8h", code=78)["order"], "ok", "by up to 7.5 h")


def test_records_with_other_features_are_invalid(check: Check) -> None:
    check.log.create_topic(check.topic, 1)
    with closing(check.log.producer()) as producer:
        producer.send(check.topic, 0, b"pump", b'{"values": {"flow": 1}}')
        producer.flush()
    assert_finding(check(code=78)["records"], "wrong", "1 of the newest 1 are invalid: 1 schema")


@pytest.mark.parametrize(
    ("freq", "minutes", "verdict", "text"),
    [
        ("15m", 15, "ok", "15 m apart, and the model's steps 15m"),
        ("17m", 15, "warning", "of several events in a step only the first is used"),
        ("15m", 17, "warning", "interpolated linearly"),
        ("15m", 60, "warning", "interpolated linearly"),
        ("15m", 75, "wrong", "no window is ever full"),
        ("1mo", 31 * 24 * 60, "ok", "the model's steps 1mo"),
        ("1mo", 24 * 60, "warning", "the first is used"),
    ],
)
def test_event_spacing_and_the_models_grid(freq: str, minutes: int, verdict: str, text: str) -> None:
    assert_finding(list(spacing(Sample(spacing=minutes * MINUTE), WindowConfig(seq_len=12, freq=freq))), verdict, text)


def test_no_finding_without_a_grid_or_without_events() -> None:
    assert not list(spacing(Sample(spacing=MINUTE), WindowConfig(seq_len=12)))
    assert not list(spacing(Sample(), WindowConfig(seq_len=12, freq="1h")))
    assert not list(order(Sample(), WindowConfig(seq_len=12)))


def test_aggregated_events_may_be_closer_than_the_grid() -> None:
    windows = WindowConfig(seq_len=12, freq="1h", aggregate="mean")
    assert_finding(list(spacing(Sample(spacing=MINUTE), windows)), "ok", "1 m apart")


def test_replication() -> None:
    topic_config = TopicConfig(False, None, None, replication=1, min_insync=1, max_message_bytes=1_000_000, brokers=3)
    assert_finding(list(replication("power", topic_config)), "warning", "has one replica")
    assert_finding(list(replication("power", topic_config._replace(replication=3))), "warning", "min.insync.replicas 1")
    assert not list(replication("power", topic_config._replace(replication=3, min_insync=2)))
    assert not list(replication("power", topic_config._replace(brokers=1)))


def test_digits_that_would_be_lost_and_readings_far_from_all_others_are_found() -> None:
    sample = Sample()
    wave: list[tuple[float, ...]] = [(round(40 * float(np.sin(step))) + 0.1,) for step in range(20)]
    sample.values |= {"near": wave, "far": [(3e9 + value,) for (value, *_) in wave], "odd": [*wave[:-1], (1e9,)]}
    card = Card(name="m", input=InputSpec(seq_len=12), output=OutputSpec(horizon=1), arch="naive", trained_until=0)
    (lost,) = values(sample, card)
    assert (lost.verdict, lost.found.endswith("train the model again: far")) == ("warning", True)
    (odd,) = values(sample, msgspec.structs.replace(card, floors={"value": 0.1}, spans={"value": 100.0}))
    assert odd.found.startswith("in 1 of 3 series a few readings far from all others")
    assert odd.found.endswith(": odd")
