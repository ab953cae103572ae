"""A service of columnar messages makes of each point what it makes of one in JSON."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from arrow import by_polars, points
from models import exported, fragile
from sharing import Shared
from waiting import Idle

from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.operations.explain import recompute_forecast
from deploy.serving import loop
from deploy.serving.loop import Service
from deploy.serving.tasks import task_for
from deploy.settings.serve import ServeConfig
from model.card import Card, InputSpec, OutputSpec
from pipeline import failpoint
from pipeline.formats.columnar.forecasts import each_forecast
from pipeline.formats.columnar.points import is_columnar
from pipeline.formats.dead_letters import read_dead_letter
from pipeline.formats.events import Event, encode
from pipeline.log import EventLog, Record
from pipeline.log.connect import connect
from tidecast.errors import ConfigError

MINUTE, START = 60_000, 1_700_000_040_000
PARTITIONS = 2
names = itertools.count()
Rows = Sequence[tuple[Any, Any, Any]]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    with closing(connect(f"sqlite:{tmp_path_factory.mktemp('log') / 'log.db'}")) as log:
        yield log


@pytest.fixture(scope="module", autouse=True)
def _poll_without_waiting() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "POLL_S", 0.0)
        yield


@pytest.fixture(scope="module")
def model(shared: Shared) -> Any:
    hyper: dict[str, Any] = {"hidden": 4, "layers": 1, "dropout": 0.0, "location": "last", "segment": 2}
    return exported(
        shared,
        Card(
            name="tiny",
            input=InputSpec(seq_len=4, freq="1m"),
            output=OutputSpec(horizon=2),
            arch="segment",
            hyperparameters=hyper,
            floors={"value": 0.01},
            trained_until=0,
        ),
    )


@pytest.fixture(scope="module")
def predictor(model: Any) -> Predictor:
    return load_onnx(model, "tiny.onnx", "cpu")


def steps(first: int, stop: int, series: int = 5) -> list[tuple[str, int, float]]:
    rng = np.random.default_rng(first)
    return [
        (f"s{each}", START + step * MINUTE, 100 + 5 * float(rng.normal()))
        for step in range(first, stop)
        for each in range(series)
    ]


class World:
    """One topic, and a group that serves a model on it."""

    def __init__(self, log: EventLog, predictor: Predictor, **settings: Any) -> None:
        self.log, self.predictor = log, predictor
        name = f"columnar-{next(names)}"
        config = ServeConfig(topic=name, group=name, instance="a", score_every=10 * MINUTE, **settings)
        self.config = config.with_outputs("forecasts", shadow=False)
        log.create_topic(name, PARTITIONS)

    def publish(self, *messages: Rows, columnar: bool = True) -> None:
        """Each message's rows, those of a series in its partition."""
        with closing(self.log.producer()) as producer:
            for rows in messages:
                for partition in range(PARTITIONS):
                    some = [row for row in rows if (ord((row[0] or "?")[-1])) % PARTITIONS == partition]
                    newest = max((ts for _, ts, _ in some if ts is not None), default=START)
                    if columnar and some:
                        producer.send(self.config.topic, partition, None, by_polars(points(some)), timestamp=newest)
                    for name, ts, value in some if not columnar else ():
                        body = encode(Event(name, ts, (value,)))
                        producer.send(self.config.topic, partition, None, body, timestamp=newest)
            producer.flush()

    def serve(self, **changed: Any) -> Any:
        config = replace(self.config, **changed)
        with closing(connect(f"sqlite:{self.log.label.removeprefix('SQLite at ')}")) as log:
            service = Service(log, self.predictor, task_for(self.predictor, config), config)
            return service.run(Idle(lambda: service.stats.taken))

    def records(self, topic: str) -> list[Record]:
        bounds = self.log.bounds(topic)
        return [
            record
            for partition in range(PARTITIONS)
            for records in self.log.read(topic, partition, *bounds[partition])
            for record in records
        ]

    def values(self, topic: str) -> list[bytes]:
        return sorted(record.value or b"" for record in each_forecast(self.records(topic)))

    @property
    def letters(self) -> list[tuple[str, Any]]:
        found = [read_dead_letter(record) for record in self.records(self.config.dead_letters)]
        return [(each.reason, each.value) for each in found if each is not None]


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_forecasts_scores_and_alerts_are_those_of_json(log: EventLog, predictor: Predictor, guarantee: Any) -> None:
    silent = range(START + 150 * MINUTE, START + 190 * MINUTE)
    rows = [row for row in steps(0, 200) if row[0] != "s1" or row[1] not in silent]
    json, arrow = (World(log, predictor, guarantee=guarantee) for _ in range(2))
    json.publish(rows, columnar=False)
    json.serve()
    arrow.publish(*(rows[first : first + 70] for first in range(0, len(rows), 70)))
    stats = arrow.serve(format="arrow")
    for name in ("output", "scores_topic", "alerts_topic"):
        assert arrow.values(getattr(arrow.config, name)) == json.values(getattr(json.config, name)), name
        assert arrow.values(getattr(arrow.config, name)), name
    messages = arrow.records(arrow.config.output)
    assert all(is_columnar(record.value) and record.key is None for record in messages)
    assert len(messages) < stats.predictions / 10
    assert stats.predictions == len(json.records(json.config.output)) > 900


def test_of_a_message_only_the_rows_that_are_late_or_invalid_are_dropped(log: EventLog, predictor: Predictor) -> None:
    world = World(log, predictor, late_topic=f"late-{next(names)}")
    late, null, old = ("s0", START + 8 * MINUTE, 3.0), ("s1", START + 10 * MINUTE, None), ("s0", START + MINUTE, 1.0)
    world.publish(steps(0, 10), [late, null, ("s2", START + 10 * MINUTE, float("nan")), old, *steps(10, 11)[3:]])
    stats = world.serve()
    assert stats.predictions == 5 * 7 + 2
    assert sorted(reason for reason, _ in world.letters) == ["bad_time", "schema", "schema"]
    bodies = [msgspec.json.decode(value) for _, value in world.letters]
    assert {"series": "s1", "ts": START + 10 * MINUTE, "value": None} in bodies
    (record,) = world.records(world.config.late_topic)
    assert msgspec.json.decode(record.value or b"") == dict(zip(("series", "ts", "value"), late, strict=True))


def test_a_message_that_is_no_stream_is_kept_whole(log: EventLog, predictor: Predictor) -> None:
    world, cut = World(log, predictor), by_polars(points(steps(0, 3_000)))[:90_000]
    with closing(log.producer()) as producer:
        producer.send(world.config.topic, 0, None, cut)
        producer.flush()
    world.serve()
    (record,) = world.records(world.config.dead_letters)
    assert record.value == cut
    assert [reason for reason, _ in world.letters] == ["malformed_arrow"]


@pytest.mark.parametrize("written", ["json", "arrow"])
def test_rows_without_an_output_of_the_model_are_dropped(log: EventLog, written: Any) -> None:
    """This model takes no root of some values, and fails for others."""
    world = World(log, fragile(), coverage=None, scores=False, alerts=False)
    rows = [("s0", START + step * MINUTE, float(value)) for step, value in enumerate([1, 2, 3, 4, 6.5, 1, 5.5, 2])]
    world.publish(rows)
    stats = world.serve(format=written)
    assert stats.predictions == 4
    ((reason, value),) = world.letters
    assert reason == "inference_failed"
    assert msgspec.json.decode(value) == dict(zip(("series", "ts", "value"), rows[4], strict=True))


def test_a_restart_goes_on_with_the_same_forecasts_and_scores(log: EventLog, predictor: Predictor) -> None:
    rows = steps(0, 120)
    found = []
    for interrupted in (False, True):
        world = World(log, predictor, format="arrow", max_batch=10)
        world.publish(*(rows[first : first + 20] for first in range(0, len(rows), 20)))
        failpoint.arm("committed:2:fail" if interrupted else "")
        with suppress(RuntimeError):
            world.serve()
        failpoint.arm("")
        world.serve()
        topics = world.config.output, world.config.scores_topic, world.config.alerts_topic
        found.append([world.values(topic) for topic in topics])
    assert [set(values) for values in found[0]] == [set(values) for values in found[1]]
    assert found[0][1]


def test_one_of_a_message_s_forecasts_is_explained(log: EventLog, predictor: Predictor, model: Any) -> None:
    world = World(log, predictor, format="arrow")
    world.publish(steps(0, 10), steps(10, 12))
    world.serve()
    output = world.config.output
    with pytest.raises(ConfigError, match="--of"):
        recompute_forecast(log, output, 0, 0, str(model), "", None)
    with pytest.raises(ConfigError, match="no forecast of 'other'"):
        recompute_forecast(log, output, 0, 0, str(model), "", None, series="other")
    for partition, series in ((0, "s0"), (1, "s1")):
        newest = log.bounds(output)[partition].end - 1
        found = recompute_forecast(log, output, partition, newest, str(model), "", None, series=series)
        assert found.same
        assert (found.forecast.series, found.forecast.ts) == (series, START + 11 * MINUTE)
