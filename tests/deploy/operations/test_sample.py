from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from deploy.operations.sample import Sample, sample
from pipeline.formats.events import Decoder, Event, encode
from pipeline.log import EventLog
from pipeline.log.connect import connect
from pipeline.windows.grid import Grid

START = 1_704_067_200_000
MINUTE = 60_000
Written = Callable[..., Sample]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        log.create_topic("power", 2)
        yield log


def write(log: EventLog, series: str, minutes: Sequence[float], partition: int = 0) -> None:
    with closing(log.producer()) as producer:
        for minute in minutes:
            event = Event(series, START + round(minute * MINUTE), (1.0,))
            producer.send("power", partition, series.encode(), encode(event))
        producer.flush()


def sampled(log: EventLog, freq: str | None = None, size: int = 2_000) -> Sample:
    return sample(log, "power", Decoder().decode, Grid.parse(freq) if freq else None, size)


def test_nothing(log: EventLog) -> None:
    assert sampled(log) == Sample()


def test_keys_tombstones_and_what_is_no_event(log: EventLog) -> None:
    with closing(log.producer()) as producer:
        for key, value in [(b"a", None), (None, b'{"series": "a", "value": 1}'), (b"a", b"{"), (b"a", b"[]")]:
            producer.send("power", 0, key, value)
        producer.flush()
    found = sampled(log)
    assert (found.records, found.valid, found.tombstones, found.keyless) == (4, 1, 1, 1)
    assert found.invalid == {"malformed_json": 1, "schema": 1}


def test_a_series_in_two_partitions(log: EventLog) -> None:
    write(log, "a", range(3), partition=0)
    write(log, "b", range(3), partition=1)
    assert sampled(log).spread == []
    write(log, "b", [3], partition=0)
    assert sampled(log).spread == ["b"]


def test_late_events_by_a_grid_and_without(log: EventLog) -> None:
    write(log, "a", [0, 10, 9.9, 20, 10, 20, 3])
    write(log, "b", [5])  # behind another series is not late
    write(log, "c", [25, 15], partition=1)
    on_grid = sampled(log, "10m")
    assert (on_grid.late, on_grid.duplicate, on_grid.lateness) == (3, 2, 17 * MINUTE)
    each = sampled(log)
    assert (each.late, each.duplicate, each.lateness) == (4, 1, 17 * MINUTE)


def test_what_is_late_lies_behind_all_of_its_partition(log: EventLog) -> None:
    write(log, "a", [0, 10])
    write(log, "b", [60])
    write(log, "a", [9])
    assert sampled(log).lateness == 51 * MINUTE


def test_spacing_and_rate(log: EventLog) -> None:
    write(log, "a", range(0, 30, 3))
    assert sampled(log).spacing is None
    write(log, "a", [30])
    found = sampled(log)
    assert found.spacing == 3 * MINUTE
    size = len(b"a") + len(encode(Event("a", START, (1.0,)))) + 20
    assert found.rate == pytest.approx(11 * size / (30 * MINUTE))


def test_only_the_newest_are_looked_at(log: EventLog) -> None:
    write(log, "old", range(50))
    write(log, "new", range(50))
    assert list(sampled(log, size=50).partitions) == ["new"]
