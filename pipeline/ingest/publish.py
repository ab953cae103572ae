"""Publishing events to a topic, as fast as the log takes them or at a multiple of real time."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.formats.decoding import Decode, decode_records
from pipeline.formats.events import Event, encode
from pipeline.log import EventLog
from pipeline.progress import Progress, silent
from tidecast.errors import ConfigError, UnknownTopic

PROGRESS_EVERY = 8_192
"""Events between two progress reports."""


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
