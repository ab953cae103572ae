"""Frames onto topics: what their readers would refuse is refused before anything is sent."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from deploy.operations.ingest import ingest, publish_frame
from pipeline.datasets.columns import Columns
from pipeline.datasets.history import from_frame, read_topic
from pipeline.formats.events import Decoder
from pipeline.ingest.publish import newest_times
from pipeline.log.connect import connect
from tidecast.errors import DataError


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


def test_a_published_frame_is_read_back_as_the_same_history(tmp_path: Path) -> None:
    rows = {
        "series": ["a", "b", "a", "a"],
        "ts": [ms(2020, 1, 2), ms(2020, 1, 1), ms(2020, 1, 1), ms(2020, 1, 2)],
        "flow": [1.0, 2.0, 3.0, 4.0],
        "heat": [0.5, 0.25, 0.125, 0.0],
    }
    source = pl.DataFrame(rows)
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        assert publish_frame(source, log, "in", partitions=1).events == 4
        assert read_topic(log, "in", ("flow", "heat")).frame.equals(from_frame(source).frame)


@pytest.mark.parametrize(("ts", "what"), [(ms(1949, 1, 1), "before 2000-01-01"), (ms(2199, 1, 1), "in the future")])
def test_times_that_readers_refuse_are_refused_before_anything_is_sent(tmp_path: Path, ts: int, what: str) -> None:
    frame = pl.DataFrame({"series": ["a", "a"], "ts": [ms(2020, 1, 1), ts], "value": [1.0, 2.0]})
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        with pytest.raises(DataError, match=f"1 of 2 measurements lie {what}"):
            publish_frame(frame, log, "in", partitions=1)
        log.create_topic("in", 1)
        assert log.bounds("in")[0] == (0, 0)


def test_only_what_is_newer_is_published_however_often_and_in_however_many_parts(tmp_path: Path) -> None:
    address, topic = f"sqlite:{tmp_path / 'log.db'}", "in"
    rows = [(name, ms(2020, 1, day), float(day)) for day in range(1, 9) for name in ("a", "b")]
    whole = pl.DataFrame(rows, ("series", "ts", "value"), orient="row")

    def run(frame: pl.DataFrame) -> tuple[object, object]:
        frame.write_csv(file := tmp_path / "rows.csv")
        found = ingest(address, str(file), topic, Columns(), None, 2, None, only_newer=True)
        return found["events"], found["left_out"]

    assert run(whole[:5]) == (5, 0), "an ingest that was interrupted"
    assert run(whole) == (11, 5)
    assert run(whole) == (0, 16), "the same file again"
    grown = pl.concat([whole, whole.tail(2).with_columns(pl.col("ts") + 86_400_000)])
    assert run(grown) == (2, 16), "a file that has grown"
    with closing(connect(address)) as log:
        columns = ("series", "ts", "value")
        read = read_topic(log, topic).frame.select(columns)
    assert read.equals(from_frame(grown).frame.select(columns))


def test_a_series_that_is_new_to_the_topic_is_published_whole(tmp_path: Path) -> None:
    with closing(connect(f"sqlite:{tmp_path / 'log.db'}")) as log:
        assert newest_times(log, "in", Decoder().decode) == {}
        publish_frame(pl.DataFrame({"series": ["a"], "ts": [ms(2020, 1, 9)], "value": [1.0]}), log, "in", partitions=1)
        with closing(log.producer()) as producer:
            producer.send("in", 0, b"a", b"no event")
            producer.flush()
        assert newest_times(log, "in", Decoder().decode) == {"a": ms(2020, 1, 9)}
