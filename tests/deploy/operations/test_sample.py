from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from deploy.operations.sample import Sample, read_sample
from pipeline.formats.events import Decoder, Event, encode
from pipeline.log import EventLog
from pipeline.log.connect import connect
from pipeline.windows.steps import Grid

START = 1_704_067_200_000
MINUTE, DAY = 60_000, 24 * 60


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        log.create_topic("power", 2)
        yield log


def write(log: EventLog, series: str, minutes: Iterable[float], partition: int = 0) -> None:
    with closing(log.producer()) as producer:
        for minute in minutes:
            event = Event(series, START + round(minute * MINUTE), (1.0,))
            producer.send("power", partition, series.encode(), encode(event))
        producer.flush()


def sample(log: EventLog, freq: str | None = None, size: int = 2_000) -> Sample:
    return read_sample(log, "power", Decoder().decode, Grid.parse(freq) if freq else None, size)


def test_empty_topic(log: EventLog) -> None:
    assert sample(log) == Sample()


def test_keyless_tombstone_and_invalid_records_are_counted(log: EventLog) -> None:
    with closing(log.producer()) as producer:
        for key, value in [(b"a", None), (None, b'{"series": "a", "value": 1}'), (b"a", b"{"), (b"a", b"[]")]:
            producer.send("power", 0, key, value)
        producer.flush()
    topic_sample = sample(log)
    assert (topic_sample.records, topic_sample.valid, topic_sample.tombstones, topic_sample.keyless) == (4, 1, 1, 1)
    assert topic_sample.invalid == {"malformed_json": 1, "schema": 1}


def test_series_in_two_partitions(log: EventLog) -> None:
    write(log, "a", range(3), partition=0)
    write(log, "b", range(3), partition=1)
    assert sample(log).spread == []
    write(log, "b", [3], partition=0)
    assert sample(log).spread == ["b"]


def test_late_events_with_and_without_a_grid(log: EventLog) -> None:
    write(log, "a", [0, 10, 9.9, 20, 10, 20, 3])
    write(log, "b", [5])  # behind another series is not late
    write(log, "c", [25, 15], partition=1)
    with_grid = sample(log, "10m")
    assert (with_grid.late, with_grid.duplicate, with_grid.lateness) == (3, 2, 17 * MINUTE)
    without_grid = sample(log)
    assert (without_grid.late, without_grid.duplicate, without_grid.lateness) == (4, 1, 17 * MINUTE)


def test_lateness_is_behind_the_partitions_stream_time(log: EventLog) -> None:
    write(log, "a", [0, 10])
    write(log, "b", [60])
    write(log, "a", [9])
    assert sample(log).lateness == 51 * MINUTE


def test_spacing_and_rate(log: EventLog) -> None:
    write(log, "a", range(0, 30, 3))
    assert sample(log).spacing is None
    write(log, "a", [30])
    topic_sample = sample(log)
    assert topic_sample.spacing == 3 * MINUTE
    size = len(b"a") + len(encode(Event("a", START, (1.0,)))) + 20
    assert topic_sample.rate == pytest.approx(11 * size / (30 * MINUTE))


@pytest.mark.parametrize(
    ("freq", "offset", "bucket", "safe", "border"),
    [
        ("1h", None, False, 0, 30),
        ("1h", "30m", False, 30, 0),
        ("1h", None, True, 30, 0),
        ("1d", None, False, 0, 12 * 60),
        ("B", None, False, 12 * 60, 0),
        ("B", "9h", False, 9 * 60, 21 * 60),
        ("1mo", None, False, 15 * DAY, 0),
        ("1mo", "-1d", False, -DAY, None),
    ],
)
def test_events_around_the_border_of_two_steps_are_found(
    log: EventLog, freq: str, offset: str | None, bucket: bool, safe: int, border: int | None
) -> None:
    """In the middle of a step jitter moves none; nor do events have a phase that are anywhere in their steps."""
    grid, plain, numbers = Grid.parse(freq, bucket, offset), Grid.parse(freq, True), np.arange(30)
    starts = (plain.time(plain.index(START) + numbers) - START) / MINUTE
    jitter = np.random.default_rng(0).normal(0, 0.01, len(numbers)) * grid.mean_step / MINUTE

    def moved(series: str, minutes: Iterable[float]) -> int:
        write(log, series, minutes, partition=len(found))
        found.append(read_sample(log, "power", Decoder().decode, grid))
        return found[-1].moved

    found: list[Sample] = []
    assert moved("safe", starts + safe + jitter) == 0
    assert found[0].intervals == 29
    if border is not None:
        assert moved("border", starts + border + jitter) > 5
        assert found[1].intervals == 58


def test_events_without_a_phase_are_around_no_border(log: EventLog) -> None:
    write(log, "anywhen", np.sort(np.random.default_rng(0).uniform(0, 3000, 200)))
    write(log, "often", range(0, 3000, 5), partition=1)
    found = sample(log, "1h")
    assert (found.moved, found.intervals) == (0, 0)


def test_only_the_newest_records_are_read(log: EventLog) -> None:
    write(log, "old", range(50))
    write(log, "new", range(50))
    assert list(sample(log, size=50).partitions) == ["new"]
