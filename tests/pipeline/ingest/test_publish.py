"""Events as an ingestor publishes them: keyed by series, in their order, at a speed."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline.formats.columnar.points import Chunk
from pipeline.formats.events import Decoder, Event
from pipeline.ingest.publish import publish, publish_columns
from pipeline.log.connect import connect
from tidecast.errors import ConfigError

START = 1_577_836_800_000
HALF_HOUR = 1_800_000


def past_events(count: int, step: int, features: int = 1) -> list[Event]:
    return [Event(f"s{row % 3}", START + row * step, (float(row),) * features) for row in range(count)]


@pytest.mark.parametrize("features", [("value",), ("flow", "heat")])
def test_each_event_is_one_record_keyed_by_its_series(
    log_address: str, fresh: Callable[[str], str], features: tuple[str, ...]
) -> None:
    events, topic, reported = past_events(300, HALF_HOUR, len(features)), fresh("in"), list[tuple[int, int]]()
    begin = time.time_ns() // 1_000_000
    with closing(connect(log_address)) as log:
        published = publish(
            iter(events),
            log,
            topic,
            features=features,
            total=300,
            partitions=2,
            on_progress=lambda *now: reported.append(now),
        )
        assert (published.events, published.partitions, reported[-1]) == (300, 2, (300, 300))
        read = {
            partition: [record for records in log.read(topic, partition, *bounds) for record in records]
            for partition, bounds in log.bounds(topic).items()
        }
        assert publish(events, log, topic, features=features, total=300, partitions=5).partitions == 2
    decoder = Decoder(features)
    series_of = [{decoder.decode(record)[0].series for record in records} for records in read.values()]
    assert not series_of[0] & series_of[1]
    for name in ("s0", "s1", "s2"):
        on_topic = [
            decoder.decode(record)[0] for records in read.values() for record in records if record.key == name.encode()
        ]
        assert on_topic == [event for event in events if event.series == name]
    assert all(record.timestamp >= begin for records in read.values() for record in records)


def test_a_speed_paces_events_by_their_own_time(tmp_path: Path) -> None:
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        begin = time.time()
        publish(past_events(4, 1000), log, "in", total=4, partitions=1, speed=20)
        written = [record.timestamp for records in log.read("in", 0, 0, 4) for record in records]
        assert written[-1] - 1000 * begin >= 149


def test_a_speed_of_zero_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        log.create_topic("in", 1)
        with pytest.raises(ConfigError, match="speed must be above 0"):
            publish(past_events(4, 1000), log, "in", total=4, partitions=1, speed=0)
        assert log.bounds("in")[0] == (0, 0)


def test_no_events_still_create_the_topic(tmp_path: Path) -> None:
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        assert publish((), log, "in", total=0, partitions=3).partitions == 3
        assert log.partitions("in") == 3


def test_columnar_events_are_in_the_partition_of_their_series_as_a_key(
    log_address: str, fresh: Callable[[str], str]
) -> None:
    """Producers of either format write to one topic."""
    count, names = 300, [f"s{row % 40}" for row in range(300)]
    chunks = [
        Chunk(names[part], START + np.arange(count)[part] * 1000, np.arange(2.0 * count).reshape(-1, 2)[part])
        for part in (slice(0, 100), slice(100, 300))
    ]
    with closing(connect(log_address)) as log:
        keyed, columnar = fresh("in"), fresh("in")
        settings = {"features": ("flow", "heat"), "total": count, "partitions": 3}
        events = [Event(name, START + row * 1000, (2.0 * row, 2.0 * row + 1)) for row, name in enumerate(names)]
        publish(iter(events), log, keyed, **settings)  # type: ignore[arg-type]
        published = publish_columns(iter(chunks), log, columnar, **settings)  # type: ignore[arg-type]
        assert (published.events, published.partitions) == (300, 3)
        decode = Decoder(("flow", "heat")).decode
        for partition in range(3):
            found = []
            for topic in (keyed, columnar):
                bounds = log.bounds(topic)[partition]
                records = [record for records in log.read(topic, partition, *bounds) for record in records]
                found.append([event for record in records for event in decode(record)])
                assert topic == keyed or len(records) == 2 * bool(found[-1])
            assert found[0] == found[1]


def test_columnar_events_keep_the_pace_of_their_times(tmp_path: Path) -> None:
    chunk = Chunk(["a"] * 5, START + np.arange(5) * 100, np.ones((5, 1)))
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        begin = time.monotonic()
        publish_columns([chunk], log, "in", total=5, partitions=1, speed=2.0)
        assert time.monotonic() - begin >= 0.2
        assert 2 <= log.bounds("in")[0].end <= 5
