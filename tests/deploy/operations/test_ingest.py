"""Frames onto topics: what their readers would refuse is refused before anything is sent."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from deploy.operations.ingest import publish_frame
from pipeline.datasets.history import from_frame, read_topic
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
