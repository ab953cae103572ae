"""A topic's past and a file as one frame, what is counted on the way, and the windows in it."""

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.columns import Columns
from pipeline.datasets.history import History, from_frame, read_topic, windows
from pipeline.datasets.measurements import publishable, read_file
from pipeline.datasets.spacing import infer_freq
from pipeline.formats.decoding import Refusals
from pipeline.formats.events import Event, encode
from pipeline.ingest.publish import publish
from pipeline.log import EventLog
from pipeline.log.connect import connect
from pipeline.windows.grid import WindowConfig
from tidecast.errors import UnknownTopic

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "series"
START = 1_600_000_000_000
SCHEMA = {"partition": pl.Int32, "offset": pl.Int64, "series": pl.String, "ts": pl.Int64, "value": pl.Float64}
Fresh = Callable[[str], str]
Place = tuple[int, bytes | None, bytes | None, int]


def event(series: str, step: int, partition: int = 0) -> Place:
    """An event of a minute grid, written the moment it is measured."""
    ts = START + 60_000 * step
    return partition, series.encode(), encode(Event(series, ts, (float(step),))), ts


def write(log: EventLog, topic: str, records: Sequence[Place]) -> None:
    log.create_topic(topic, 2)
    with closing(log.producer()) as producer:
        for partition, key, value, timestamp in records:
            producer.send(topic, partition, key, value, timestamp=timestamp)
        producer.flush()


def frame(rows: Sequence[tuple[str, int, float]]) -> pl.DataFrame:
    return pl.DataFrame(rows, {name: SCHEMA[name] for name in ("series", "ts", "value")}, orient="row")


def test_a_topic_reads_as_its_events_in_order_with_invalid_records_counted(log: EventLog, fresh: Fresh) -> None:
    topic, seen = fresh("in"), list[tuple[int, int]]()
    write(
        log,
        topic,
        [
            event("b", 0, partition=1),
            event("a", 0),
            (0, b"a", None, START),
            (0, b"a", b"{", START),
            event("a", 1),
            (1, b"b", b'{"value": true}', START),
            (1, b"b", b'{"value": 1', START),
        ],
    )
    history = read_topic(log, topic, on_progress=lambda *now: seen.append(now))
    assert history.frame.schema == SCHEMA
    assert history.frame.rows() == [
        (0, 0, "a", START, 0.0),
        (0, 3, "a", START + 60_000, 1.0),
        (1, 0, "b", START, 0.0),
    ]
    assert history.offsets == {0: (0, 4), 1: (0, 3)}
    assert history.invalid == {"malformed_json": 2, "schema": 1}
    assert history.tombstones == 1
    assert seen[-1] == (7, 7)
    assert seen == sorted(seen)


def test_a_range_of_times_is_a_range_of_offsets(log: EventLog, fresh: Fresh) -> None:
    topic = fresh("in")
    write(log, topic, [*(event("a", step) for step in range(6)), *(event("b", step, partition=1) for step in (0, 5))])
    history = read_topic(log, topic, since=START + 60_000, until=START + 4 * 60_000)
    assert history.offsets == {0: (1, 4), 1: (1, 1)}
    assert history.frame["offset"].to_list() == [1, 2, 3]
    nothing = read_topic(log, topic, since=START + 1, until=START)
    assert nothing.frame.schema == SCHEMA
    assert nothing.frame.is_empty()


def test_an_empty_topic_and_an_unknown_one(log: EventLog, fresh: Fresh) -> None:
    topic = fresh("in")
    log.create_topic(topic, 1)
    assert read_topic(log, topic, ("flow", "heat")).frame.columns == [
        "partition",
        "offset",
        "series",
        "ts",
        "flow",
        "heat",
    ]
    with pytest.raises(UnknownTopic):
        read_topic(log, fresh("none"))


def test_a_published_file_reads_as_the_history_of_the_file(tmp_path: Path) -> None:
    source = frame([("a", START + 60_000, 1.0), ("b", START, 2.0), ("a", START, 3.0), ("a", START + 60_000, 4.0)])
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        publish(publishable(source), log, "in", total=4, partitions=1)
        assert read_topic(log, "in").frame.equals(from_frame(source).frame)
    assert from_frame(source).offsets == {0: (0, 4)}


@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=4), seq_len=st.integers(2, 5))
def test_windows_of_a_history_are_those_of_its_series(counts: list[int], seq_len: int) -> None:
    rows = [(f"s{at}", START + 60_000 * step, float(step)) for at, count in enumerate(counts) for step in range(count)]
    found = windows(from_frame(frame(rows)), WindowConfig(seq_len=seq_len, freq="1m"))
    names = [found.names[found.series[end]] for end in found.ends]
    assert sorted(names) == [f"s{at}" for at, count in enumerate(counts) for _ in range(seq_len - 1, count)]


def test_windows_never_span_partitions() -> None:
    rows = [(partition, step, "a", START + 60_000 * step, float(step)) for partition in (0, 3) for step in range(4)]
    rows.append((3, 4, "b", START, 0.0))
    history = History(pl.DataFrame(rows, SCHEMA, orient="row"), {0: (0, 4), 3: (0, 5)}, Refusals())
    found = windows(history, WindowConfig(seq_len=4))
    assert {"a@0", "a@3"} == {found.names[found.series[end]] for end in found.ends}
    assert set(found.names) == {"a@0", "a@3", "b"}


def monthly(months: int) -> list[int]:
    return [
        int(datetime(1949 + at // 12, at % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000) for at in range(0, 144, months)
    ]


@pytest.mark.parametrize(
    ("times", "freq"),
    [
        (range(0, 10 * 1_800_000, 1_800_000), "30m"),
        (range(0, 10 * 90_000, 90_000), "90s"),
        (range(0, 2_500, 250), "250ms"),
        (range(0, 10 * 86_400_000, 86_400_000), "1d"),
        (range(0, 20 * 604_800_000, 604_800_000), "1w"),
        (range(0, 60 * 28 * 86_400_000, 28 * 86_400_000), "4w"),
        (monthly(1), "1mo"),
        (monthly(3), "3mo"),
        (monthly(12), "1y"),
        ([0, 60_000, 120_000, 900_000, 960_000, 1_020_000], "1m"),
        ([0, 0, 0, 60_000, 60_000, 120_000], "1m"),
        ([0, 1, 10, 100, 1_000], None),
        ([0], None),
        ([], None),
    ],
)
def test_infer_freq(times: Sequence[int], freq: str | None) -> None:
    rows = [(series, ts, 0.0) for ts in times for series in ("a", "b")]
    assert infer_freq(frame(rows)) == freq


@pytest.mark.parametrize(
    ("name", "columns", "freq"),
    [
        ("nab/nyc_taxi.csv", Columns(), "30m"),
        ("nab/machine_temperature_system_failure.csv", Columns(), "5m"),
        ("nab/ec2_request_latency_system_failure.csv", Columns(), "5m"),
        ("nab/realTraffic_TravelTime_387.csv", Columns(), "10m"),
        ("ett/ETTh1.csv", Columns(), "1h"),
        ("pedestrian.csv", Columns(value="Count"), "1h"),
        ("flights.csv", Columns(), "1mo"),
        ("dowjones.csv", Columns(), "1mo"),
    ],
)
def test_infer_freq_of_real_files(name: str, columns: Columns, freq: str | None) -> None:
    if not DATA.exists():
        pytest.skip(f"the real series are not at {DATA}")
    assert infer_freq(read_file(str(DATA / name), columns).frame) == freq
