"""Records to events, with a codec whose records bring several."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from deploy.serving.partition import push_records
from deploy.serving.tasks import Task
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import decode_records
from pipeline.formats.events import Event
from pipeline.log import Record
from pipeline.log.connect import connect
from pipeline.windows.grid import WindowConfig
from pipeline.windows.streaming import WindowStore

START, HOUR = 1_700_000_000_000, 3_600_000


def columns(record: Record) -> Sequence[Event]:
    """A codec of many points a record: `series hour hour ..`."""
    series, *hours = (record.value or b"").decode().split()
    if not hours:
        raise InvalidEvent("schema", "no hours")
    return [Event(series, START + int(hour) * HOUR, (float(hour),)) for hour in hours]


def written(path: Path, *values: bytes | None) -> list[Record]:
    with closing(connect(f"sqlite:{path / 'log.db'}")) as log:
        log.create_topic("points", 1)
        with closing(log.producer()) as producer:
            for value in values:
                producer.send("points", 0, None, value)
            producer.flush()
        return [record for records in log.read("points", 0, 0, len(values)) for record in records]


def test_each_record_has_events_or_an_error_or_is_a_tombstone(tmp_path: Path) -> None:
    found = list(decode_records(written(tmp_path, b"a 1 2", None, b"b"), columns))
    assert [len(events) for _, events, _ in found] == [2, 0, 0]
    assert [error and error.reason for _, _, error in found] == [None, None, "schema"]
    assert [record.offset for record, _, _ in found] == [0, 1, 2]


def test_all_events_of_a_record_are_pushed_and_one_invalid_event_makes_one_dead_letter(tmp_path: Path) -> None:
    store = WindowStore(WindowConfig(seq_len=2, freq="1h"))
    rest: dict[str, Any] = {"postprocess": None, "encode": None, "output_kind": "", "message_bytes": 0}
    task = Task(decode=columns, windower=lambda _: store, **rest)
    records = written(tmp_path, b"a 10 11 12", b"a 11", b"a 13 1 2 14", b"b 1")
    dropped = push_records(store, task, records)
    windows = store.take()
    hours = [(ts - START) // HOUR for ts in windows.ts.tolist()]
    assert (hours, windows.offset.tolist()) == ([11, 12, 13, 14], [0, 0, 2, 2])
    assert [(record.offset, error.reason) for record, error in dropped.invalid] == [(2, "bad_time")]
    assert [record.offset for record in dropped.late] == [1]
