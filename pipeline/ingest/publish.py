"""Publishing events to a topic, as fast as the log takes them or at a multiple of real time."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from pipeline.formats.columnar.forecasts import MESSAGE_BYTES, ROW_BYTES
from pipeline.formats.columnar.ipc import Ints
from pipeline.formats.columnar.points import Chunk
from pipeline.formats.columnar.writing import Moments, words_of, write_stream
from pipeline.formats.decoding import Decode, decode_records
from pipeline.formats.events import Event, encode
from pipeline.log import EventLog
from pipeline.progress import Progress, silent
from tidecast.errors import ConfigError, UnknownTopic

PROGRESS_EVERY = 8_192
"""Events between two progress reports."""
MOST_ROWS = 4_096
"""Most rows of a columnar message: they are decoded, forecast and committed together."""


@dataclass(frozen=True, slots=True)
class Published:
    """The number of events published, and of the topic's partitions."""

    events: int
    partitions: int


def publish(
    events: Iterable[Event],
    log: EventLog,
    topic: str,
    *,
    features: Sequence[str] = ("value",),
    total: int,
    partitions: int,
    speed: float | None = None,
    on_progress: Progress = silent,
) -> Published:
    """Publish events to a topic, in their order, as JSON keyed by series; return when all are acknowledged.

    `total` is their number, for `on_progress`. `speed` replays event time at that multiple of real time; None is as
    fast as the log accepts them. `partitions` is for a topic that does not exist yet. A record's timestamp is the time
    at which it is written: retention goes by it, and would delete records with timestamps of the past on arrival.
    Raises ConfigError for a speed that is not positive, before anything is sent.
    """
    pace = _Pace(speed)
    count = log.create_topic(topic, partitions)
    producer = log.producer()
    done = 0
    try:
        for done, event in enumerate(events, start=1):
            if (wait := pace.wait(event.ts)) > 0:
                producer.flush()
                on_progress(done - 1, total)
                time.sleep(wait)
            producer.send(topic, None, event.series.encode(), encode(event, features))
            if done % PROGRESS_EVERY == 0:
                on_progress(done, total)
        producer.flush()
    finally:
        producer.close()
    on_progress(done, total)
    return Published(done, count)


def publish_columns(
    chunks: Iterable[Chunk],
    log: EventLog,
    topic: str,
    *,
    features: Sequence[str] = ("value",),
    total: int,
    partitions: int,
    speed: float | None = None,
    on_progress: Progress = silent,
) -> Published:
    """As `publish`, in columnar messages, each of rows of one partition: that of their series as a key."""
    pace = _Pace(speed)
    count = log.create_topic(topic, partitions)
    producer, places, done = log.producer(), dict[str, int](), 0
    try:
        for chunk in chunks:
            for name in set(chunk.series) - places.keys():
                places[name] = log.partition_of(name.encode(), count)
            where, start = np.array([places[name] for name in chunk.series], np.int64), 0
            while start < len(chunk.ts):
                if (wait := pace.wait(int(chunk.ts[start]))) > 0:
                    producer.flush()
                    on_progress(done, total)
                    time.sleep(wait)
                stop = max(start + 1, int(np.searchsorted(chunk.ts, pace.due, "right")))
                for partition in np.unique(where[start:stop]).tolist():
                    rows = start + np.flatnonzero(where[start:stop] == partition)
                    for value in _messages(chunk, rows, features):
                        producer.send(topic, partition, None, value)
                done, start = done + stop - start, stop
            on_progress(done, total)
        producer.flush()
    finally:
        producer.close()
    return Published(done, count)


def _messages(chunk: Chunk, rows: Ints, features: Sequence[str]) -> Iterator[bytes]:
    at_once = max(1, min(MOST_ROWS, MESSAGE_BYTES // (ROW_BYTES + 8 * len(features))))
    for first in range(0, len(rows), at_once):
        some = rows[first : first + at_once]
        values = {name: np.ascontiguousarray(chunk.values[some, place]) for place, name in enumerate(features)}
        series = words_of([chunk.series[row] for row in some.tolist()])
        yield write_stream({"series": series, "ts": Moments(chunk.ts[some]), **values})


def newest_times(log: EventLog, topic: str, decode: Decode) -> dict[str, int]:
    """The time of each series' newest event on a topic, epoch milliseconds; none if there is no such topic.

    Records that are no events have no series, and are passed over. Raises LogUnavailable.
    """
    newest: dict[str, int] = {}
    try:
        bounds = log.bounds(topic)
    except UnknownTopic:
        return newest
    for records in log.read_partitions(topic, bounds):
        for _, events, _ in decode_records(records, decode):
            for event in events:
                newest[event.series] = max(event.ts, newest.get(event.series, event.ts))
    return newest


class _Pace:
    """Paces events so that event time passes at `speed` times real time, from the first event on."""

    def __init__(self, speed: float | None) -> None:
        if speed is not None and not speed > 0:
            raise ConfigError(f"speed must be above 0, not {speed}")
        self._speed = speed
        self._start: tuple[float, int] | None = None

    def wait(self, ts: int) -> float:
        """Seconds until the event at `ts` is due; not above 0 if it is."""
        if self._speed is None:
            return 0.0
        self._start = self._start or (time.monotonic(), ts)
        begun, first = self._start
        return begun + (ts - first) / 1000 / self._speed - time.monotonic()

    @property
    def due(self) -> float:
        """The latest time of an event that is due."""
        if self._speed is None or self._start is None:
            return inf
        begun, first = self._start
        return first + (time.monotonic() - begun) * 1000 * self._speed
