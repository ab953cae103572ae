"""Live scores equal those recomputed from the topics, to the bit: with kills, restarts, swaps, gaps, late events."""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import exported
from sharing import Shared
from waiting import stop, until

from deploy.grading.rebuilt import read_forecasts, rebuild
from deploy.grading.recompute import Regraded
from deploy.models.loading import load_onnx
from model.artifacts.registry import Registry
from model.artifacts.versions import MODEL_FILE
from model.card import Card, InputSpec, OutputSpec
from pipeline.formats.decoding import Refusals
from pipeline.formats.events import Event, encode
from pipeline.formats.scores import SeriesScores, decode_scores
from pipeline.log import EventLog, Producer
from pipeline.log.connect import connect
from tidecast.errors import UnknownTopic

Fresh = Callable[[str], str]
Tidecast = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Evict = Callable[[str, str], None]

MINUTE, START = 60_000, 1_700_000_040_000
PARTITIONS, SERIES, STEPS = 4, 500, 205
SEASON = 5
EVERY = 10
"""Minutes of a bucket."""
Row = tuple[int, int, float]
"""Series, step, value."""


def models(shared: Shared, horizon: int) -> list[Path]:
    """Two versions of a model with other weights."""
    return [
        exported(
            shared,
            Card(
                name="graded",
                input=InputSpec(seq_len=12, freq="1m", season=SEASON),
                output=OutputSpec(horizon=horizon),
                arch="segment",
                hyperparameters={"hidden": 4, "layers": 1, "segment": 4, "dropout": 0.0, "location": "last"},
                trained_until=0,
            ),
            seed,
        )
        for seed in (5, 7)
    ]


def register(registry: Registry, model: Path, folder: Path) -> str:
    """A file as the next version of tiny."""
    run = folder / f"run-{model.parent.name}"
    run.mkdir()
    shutil.copy(model, run / MODEL_FILE)
    with registry.run("tiny") as training:
        return registry.register("tiny", training, run, tags={}).label


def rows(series: int, steps: int) -> list[Row]:
    """Events of all series, step by step: some late, twice, far too late, and with holes that are filled and others."""
    rng, found, silent = np.random.default_rng(3), list[Row](), np.zeros(series, np.int64)
    for step in range(steps):
        for number in range(series):
            chance, value = rng.random(), float(np.sin(step / 4 + number) + rng.normal(0, 0.2)) * 10.0 ** (number % 5)
            if silent[number]:
                silent[number] -= 1
                continue
            if chance < 0.01:
                silent[number] = rng.integers(1, 4) if chance < 0.007 else rng.integers(4, 25)
            elif chance < 0.02:
                found.append((number, step - int(rng.integers(1, 4)), value))  # late; its own step has none
            else:
                found.append((number, step, value))
                if chance < 0.03:
                    found.append((number, step, value + 1))
                elif chance < 0.031:
                    found.append((number, step - 40, value))
    return found


def send(producer: Producer, topic: str, events: list[Row]) -> None:
    for number, step, value in events:
        event = Event(f"s{number}", START + step * MINUTE, (value,))
        producer.send(topic, number % PARTITIONS, event.series.encode(), encode(event))
    producer.flush()


class Life:
    """A service that is killed, swapped and restarted while events come."""

    def __init__(
        self, log: EventLog, producer: Producer, topic: str, group: str, start: Callable[[], subprocess.Popen[str]]
    ) -> None:
        self.log, self.topic, self.group = log, topic, group
        self._producer, self._start = producer, start
        self.service = start()

    def count(self, topic: str) -> int:
        try:
            return sum(bounds.end for bounds in self.log.bounds(topic).values())
        except UnknownTopic:
            return 0

    def feed(self, events: list[Row], forecasts: int) -> None:
        """Send events, and wait for so many forecasts of them."""
        enough = self.count(f"{self.topic}-forecasts") + forecasts
        send(self._producer, self.topic, events)
        until(lambda: self.count(f"{self.topic}-forecasts") >= enough, self.service)

    def until_read(self) -> None:
        """Wait until all of the input is committed."""
        ends = {partition: bounds.end for partition, bounds in self.log.bounds(self.topic).items()}
        until(
            lambda: {p: c.offset for p, c in self.log.committed(self.group, self.topic).items()} == ends, self.service
        )

    def kill(self, evict: Callable[[], None]) -> None:
        self.service.kill()
        self.service.wait()
        evict()
        self.service = self._start()

    def restart(self) -> dict[str, Any]:
        ended = stop(self.service)
        self.service = self._start()
        return ended


def scores(log: EventLog, topic: str) -> list[SeriesScores]:
    return [
        decode_scores(record.value or b"")
        for partition, bounds in log.bounds(f"{topic}-forecasts-scores").items()
        for records in log.read(f"{topic}-forecasts-scores", partition, *bounds)
        for record in records
    ]


def closed(log: EventLog, topic: str, cards: dict[str, Any]) -> dict[str, set[int]]:
    """By series the starts of the buckets that are over and in which something was scored, or never came."""
    found: dict[str, set[int]] = {}
    for partition in log.bounds(f"{topic}-forecasts"):
        for source, made in read_forecasts(log, f"{topic}-forecasts", partition, Refusals()).items():
            graded = Regraded(rebuild(log, source, made, cards.__getitem__), ("value",))
            buckets = graded.ts // (EVERY * MINUTE) * (EVERY * MINUTE)
            newest: dict[str, int] = {}
            for life, start in zip(graded.life.tolist(), buckets.tolist(), strict=True):
                newest[graded.lives.series[life]] = start
            for ahead in range(1, graded.horizon + 1):
                points = graded.points(ahead)
                for at in np.unique(np.concatenate([points.at, points.missed])).tolist():
                    series, start = graded.lives.series[graded.life[at]], int(buckets[at])
                    if start != newest[series]:
                        found.setdefault(series, set()).add(start)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("guarantee", "horizon"), [("exactly-once", 3), ("at-least-once", 3), ("at-least-once", 12)])
def test_scores_equal_a_recompute_to_the_bit(
    kafka_bootstrap: str,
    shared: Shared,
    tracking_uri: str,
    tidecast: Tidecast,
    start_tidecast: Start,
    evict: Evict,
    fresh: Fresh,
    tmp_path: Path,
    guarantee: str,
    horizon: int,
) -> None:
    topic, group = fresh("graded"), fresh("group")
    where = ("--bootstrap", kafka_bootstrap, "--tracking-uri", tracking_uri)
    options = ("--topic", topic, "--group", group, "--model", "tiny@champion", "--instance", "a", "--device", "cpu")
    more = ("--score-every", f"{EVERY}m", "--follow", "100ms", "--guarantee", guarantee, "--json")
    files, events = models(shared, horizon), rows(SERIES, STEPS)
    register(registry := Registry(tracking_uri), files[0], tmp_path)
    parts = [events[number * len(events) // 6 : (number + 1) * len(events) // 6] for number in range(6)]
    with closing(connect(kafka_bootstrap)) as log, closing(log.producer()) as producer:
        log.create_topic(topic, PARTITIONS)
        life = Life(log, producer, topic, group, lambda: start_tidecast("serve", *options, *more, *where))
        life.feed(parts[0], 4_000)
        life.feed(parts[1], 3_000)
        life.kill(lambda: evict(kafka_bootstrap, group))
        life.until_read()
        label = register(registry, files[1], tmp_path)
        assert tidecast("promote", label, "--tracking-uri", tracking_uri).returncode == 0
        for number in range(0, len(parts[2]), 500):
            life.feed(parts[2][number : number + 500], 100)
        life.feed(parts[3], 5_000)
        life.kill(lambda: evict(kafka_bootstrap, group))
        life.feed(parts[4], 5_000)
        life.restart()
        life.feed(parts[5], 5_000)
        life.until_read()
        summary = stop(life.service)
        assert not summary["dead_letters"] or summary["dead_letters"] < 100
        written = scores(log, topic)
        distinct = {(each.series, each.start, each.until): each for each in written}
        assert guarantee == "at-least-once" or len(written) == len(distinct)
        ended = tidecast("score", f"{topic}-forecasts", "--recompute", *where, "--json")
        found = json.loads(ended.stdout.splitlines()[-1])
        nothing = {"differ": 0, "unknown": 0, "missing": 0, "first": None, "forecasts_lost": 0}
        compared = {"scores": f"{topic}-forecasts-scores", "scores_left_out": {}}
        assert found["recomputed"] == {"equal": len(distinct), **nothing, "same": True, **compared}
        assert ended.returncode == 0
        cards = {f"tiny/{number}": load_onnx(file, "", "cpu").card for number, file in enumerate(files, 1)}
        wanted = closed(log, topic, cards)
    starts: dict[str, set[int]] = {}
    for each in distinct.values():
        starts.setdefault(each.series, set()).add(each.start)
    assert starts == wanted, "each bucket that is over has a record"
    assert {part.model for each in distinct.values() for part in each.scores} == {"tiny/1", "tiny/2"}
    assert any(len(each.scores) == 2 for each in distinct.values()), "both in one bucket"
    assert sum(map(sum, (each.unscored["value"] for each in distinct.values()))) > 100
    assert len(found["steps"]) == horizon
    assert found["all"]["count"] > 50_000 * min(horizon, 3)
