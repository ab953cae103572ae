"""A service interrupted at any step, again and again, writes what an uninterrupted one writes, byte for byte."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import exported, fragile
from properties import examples
from sharing import Shared
from waiting import Idle

from deploy.grading.reader import Selection
from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.operations.recompute import Served, recompute
from deploy.serving import checkpoints, loop
from deploy.serving.loop import Service
from deploy.serving.tasks import task_for
from deploy.settings.serve import Guarantee, ServeConfig, ShortSeries
from model.card import Card, InputSpec, OutputSpec
from model.residuals import Residuals
from pipeline import failpoint
from pipeline.formats.headers import INPUT, read_headers
from pipeline.log import EventLog
from pipeline.log.connect import connect

MINUTE = 60_000
START = 1_700_000_040_000
PARTITIONS, SERIES = 2, 5
LEVEL = 3_000_000_000
names = itertools.count()
Row = tuple[int, bytes, bytes | None]
"""A record's partition, key and value."""


@pytest.fixture(scope="module")
def predictor(shared: Shared) -> Predictor:
    inputs, outputs = InputSpec(seq_len=4, freq="1m"), OutputSpec(horizon=2)
    hyper: dict[str, Any] = {"hidden": 4, "layers": 1, "dropout": 0.0, "location": "last", "segment": 2}
    card = Card(
        name="tiny",
        input=inputs,
        output=outputs,
        arch="segment",
        hyperparameters=hyper,
        floors={"value": 0.01},
        trained_until=0,
    )
    return load_onnx(exported(shared, card), "tiny.onnx", "cpu")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    with closing(connect(f"sqlite:{tmp_path_factory.mktemp('log') / 'log.db'}")) as log:
        yield log


@pytest.fixture(scope="module", autouse=True)
def _poll_without_waiting() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "POLL_S", 0.0)
        patch.setattr(checkpoints, "SLICE_S", 0.0)  # one state in each slice
        patch.setattr(checkpoints, "SHARE", 0.0)
        yield
    failpoint.arm("")


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Several series per partition: mostly the next minute; gaps, late and duplicate events, invalid records.

    The values of every other series lie at 3e9.
    """
    random, records, minutes = Random(draw(st.integers(0, 2**32))), [], [0] * SERIES
    for number in random.choices(range(SERIES), range(1, SERIES + 1), k=draw(st.integers(0, 200))):
        minutes[number] += random.choice([1, 1, 1, 1, 1, 2, 3, 7, 0, -1, -3, -9])
        ts = START + minutes[number] * MINUTE + random.randrange(3000)
        event = b'{"ts":%d,"value":%d.1}' % (ts, minutes[number] + number % 2 * LEVEL)
        value = random.choices([event, b"{", None], [50, 1, 1])[0]
        records.append((number % PARTITIONS, b"s%d" % number, value))
    return records


INTERRUPTIONS = st.lists(
    st.tuples(st.sampled_from(failpoint.STEPS), st.integers(1, 6), st.integers(1, 40)), min_size=1, max_size=6
)
SPECS = st.sampled_from(
    [
        InputSpec(seq_len=4, freq="1m"),
        InputSpec(seq_len=4),
        InputSpec(seq_len=4, freq="1m", lateness=3 * MINUTE),
        InputSpec(seq_len=4, lateness=2 * MINUTE),
        InputSpec(seq_len=4, freq="2m", aggregate="mean"),
        InputSpec(seq_len=4, freq="2m", aggregate="last", lateness=MINUTE, max_gap=0),
    ]
)


class World:
    """One topic and one group on it."""

    def __init__(self, log: EventLog, predictor: Predictor, config: ServeConfig, records: list[Row]) -> None:
        self.log, self.predictor, self.config = log, predictor, config
        log.create_topic(config.topic, PARTITIONS)
        self.send(records)

    def send(self, records: list[Row]) -> None:
        """Append to the topic."""
        config = self.config
        with closing(self.log.producer()) as producer:
            for offset, (partition, key, value) in enumerate(records):
                producer.send(config.topic, partition, key, value, timestamp=START + offset + 10**9)
            producer.flush()

    def serve(self) -> None:
        """Serve until the topic is read, or an armed failpoint interrupts it."""
        with closing(connect(f"sqlite:{self.log.label.removeprefix('SQLite at ')}")) as log:
            service = Service(log, self.predictor, task_for(self.predictor, self.config), self.config)
            service.run(Idle(lambda: service.stats.taken))

    def read(self, topic: str) -> list[list[tuple[Any, ...]]]:
        """A topic's records, by partition."""
        parts = []
        for partition, (start, end) in sorted(self.log.bounds(topic).items()):
            records = itertools.chain.from_iterable(self.log.read(topic, partition, start, end))
            parts.append([(each.key, each.value, each.timestamp, *without_topic(each.headers)) for each in records])
        return parts

    def state(self) -> list[dict[bytes, bytes | None]]:
        """The latest state of each key; the partition's record without the topics' ids."""
        latest = [{row[0]: row[1] for row in part} for part in self.read(self.config.state_topic)]
        for part in latest:
            position, count, _, stream_time, _ = msgspec.msgpack.decode(part[b"partition"][1:-4])
            part[b"partition"] = msgspec.msgpack.encode((position, count, stream_time))
        return [{key: _opened(value) for key, value in part.items() if value is not None} for part in latest]


def _opened(value: bytes) -> Any:
    """A record's fields, and its sections by name."""
    if not isinstance(value, bytes) or value[0] not in (2, 4):
        return value
    *fields, sections = msgspec.msgpack.decode(value[1:-4])
    return (fields, sections) if isinstance(sections, dict) else value


def without_topic(headers: Any) -> list[tuple[str, str]]:
    """Headers without those that contain the topic's name, which differs between the services compared."""
    return [(name, value) for name, value in read_headers(headers).items() if name not in ("tidecast.topic", INPUT)]


def world(log: EventLog, predictor: Predictor, records: list[Row], **settings: Any) -> World:
    number = next(names)
    config = ServeConfig(
        topic=f"t{number}", output=f"t{number}-out", group=f"g{number}", instance="a", start="earliest", **settings
    )
    return World(log, predictor, config.with_outputs("forecasts", shadow=False), records)


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
@given(
    records=rows(),
    spec=SPECS,
    interruptions=INTERRUPTIONS,
    limit=st.sampled_from([100, 2]),
    idle=st.sampled_from([None, 8 * MINUTE, 30 * MINUTE]),
    checkpoint_s=st.sampled_from([0.0, 0.0, 1000.0]),
    short_series=st.sampled_from(["wait", "naive"]),
    fails=st.booleans(),
)
@settings(max_examples=examples(60))
def test_interrupted_service_writes_the_same_as_an_uninterrupted_one(
    log: EventLog,
    predictor: Predictor,
    guarantee: Guarantee,
    records: list[Row],
    spec: InputSpec,
    interruptions: list[tuple[str, int, int]],
    limit: int,
    idle: int | None,
    checkpoint_s: float,
    short_series: ShortSeries,
    fails: bool,
) -> None:
    predictor = fragile() if fails else predictor
    assert isinstance(predictor.card, Card)
    predictor = replace(predictor, card=msgspec.structs.replace(predictor.card, input=spec))
    options: dict[str, Any] = {"series_limit": limit, "idle": idle, "checkpoint_s": checkpoint_s}
    options |= {"guarantee": guarantee, "short_series": short_series}
    uninterrupted = world(log, predictor, records, **options, late_topic=f"late-{next(names)}")
    failpoint.arm("")
    uninterrupted.serve()
    interrupted = world(log, predictor, records, **options, late_topic=f"late-{next(names)}")
    for step, count, max_batch in interruptions:
        interrupted.config = replace(interrupted.config, max_batch=max_batch)
        failpoint.arm(f"{step}:{count}:fail")
        with suppress(RuntimeError):
            interrupted.serve()
    failpoint.arm("")
    interrupted.serve()
    for topic in ("output", "dead_letters", "late_topic", "scores_topic", "alerts_topic"):
        expected, actual = (each.read(getattr(each.config, topic)) for each in (uninterrupted, interrupted))
        if guarantee == "at-least-once":
            actual = [list(dict.fromkeys(_hashable(part))) for part in actual]
            expected = [list(dict.fromkeys(_hashable(part))) for part in expected]
        assert actual == expected, topic
    assert interrupted.state() == uninterrupted.state()
    assert all(scores_are_right(each) for each in (uninterrupted, interrupted))


def scores_are_right(world: World) -> bool:
    """Whether the live scores are those that the topics lead to."""
    card, config = world.predictor.card, world.config
    assert isinstance(card, Card)
    served = Served(None, "", config.lateness, config.idle, config.paths, config.series_limit)
    found = recompute(world.log, config.output, Selection(), lambda _: card, served)
    assert found.comparison.same, found.comparison.first
    return not (found.lost or found.comparison.unknown)


def of_version(predictor: Predictor, number: int) -> Predictor:
    """A version of the model, the errors of which in validation were that many times larger."""
    assert isinstance(predictor.card, Card)
    card, steps = predictor.card, (1, 2)
    quantiles = tuple((-2.0 * number * step, 0.0, 3.0 * number * step) for step in steps)
    residuals = Residuals(levels=(0.05, 0.5, 0.95), steps=steps, quantiles={"value": quantiles}, typical={"value": 1.0})
    card = msgspec.structs.replace(card, residuals=residuals, spans={"value": 10.0 / number})
    return replace(predictor, card=card, label=f"tiny/{number}")


def minutes(series: int, first: int, end: int) -> list[Row]:
    """Some minutes of so many series."""
    values = [(minute, 50 if minute == 3 else minute % 3) for minute in range(first, end)]
    events = [b'{"ts":%d,"value":%d}' % (START + minute * MINUTE, value) for minute, value in values]
    return [(number % PARTITIONS, b"s%d" % number, event) for event in events for number in range(series)]


@pytest.mark.parametrize("short_series", ["wait", "naive"])
def test_series_that_began_since_the_checkpoint_keep_the_errors_of_the_version_that_served_then(
    log: EventLog, predictor: Predictor, short_series: ShortSeries, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"checkpoint_s": 1000.0, "short_series": short_series}
    uninterrupted, interrupted = (world(log, predictor, minutes(3, 0, 9), **options) for _ in range(2))
    for each, last in ((uninterrupted, ""), (interrupted, "pass-begun:2:fail")):
        each.predictor = of_version(predictor, 1)
        failpoint.arm(last)
        with suppress(RuntimeError):
            each.serve()
        failpoint.arm("")
        each.predictor = of_version(predictor, 3)
        each.send(minutes(5, 9, 15))
        each.serve()
    assert interrupted.read(interrupted.config.output) == uninterrupted.read(uninterrupted.config.output)
    assert interrupted.state() == uninterrupted.state()
    assert "its card is unknown" not in caplog.text


def test_a_version_that_no_checkpoint_knows_is_said(
    log: EventLog, predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    served = world(log, predictor, minutes(3, 0, 9), checkpoint_s=1000.0)
    for number, last in ((1, ""), (2, "pass-begun:1:fail"), (3, "")):
        served.predictor = of_version(predictor, number)
        failpoint.arm(last)
        with suppress(RuntimeError):
            served.serve()
        served.send(minutes(3, 9 + 2 * number, 11 + 2 * number))
    assert caplog.text.count("tiny/2 served after the last checkpoint, and its card is unknown") == 1


def _hashable(part: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(map(repr, row)) for row in part]


def test_a_service_says_what_it_takes_over_why_and_how_much_lies_before_it(
    predictor: Predictor, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deploy")
    name = f"said-{next(names)}"
    log.create_topic(name, PARTITIONS)
    with closing(log.producer()) as producer:
        for minute in range(10):
            event = b'{"ts":%d,"value":1}' % (START + minute * MINUTE)
            producer.send(name, minute % PARTITIONS, b"pump", event)
        producer.flush()
    config = ServeConfig(topic=name, output=f"{name}-out", group=name, instance="pump-1", start="earliest")
    service = Service(log, predictor, task_for(predictor, config), config)
    service.run(Idle(lambda: service.stats.taken))
    said = [line for line in caplog.messages if "partition" in line]
    assert said == [
        f"pump-1 takes over partitions 0-1: it joined {name}",
        f"{name}: new to partitions 0-1, from the earliest record on: 10 records are there",
    ]
