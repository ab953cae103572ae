"""Which series have been idle for too long, by their partition's time, in the order in which they came to be."""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Protocol

from pipeline.windows.reorder import BEFORE_ALL


class Dated(Protocol):
    """What is needed of a series."""

    ts: int
    """The time of its last step."""
    last_event_ts: int
    """The latest time of any event that is pending, epoch milliseconds."""


class Expiries:
    """When a partition's series expire: `idle` milliseconds after their last event; None: never."""

    def __init__(self, idle: int | None) -> None:
        self._idle = idle
        self._due: list[tuple[int, str]] = []

    @property
    def next_due(self) -> int:
        """The stream time at which the next series may expire."""
        return self._due[0][0] if self._due else -BEFORE_ALL

    def schedule(self, name: str, last_event_ts: int) -> None:
        """Schedule a series whose last event was at this time."""
        if self._idle is not None:
            heappush(self._due, (last_event_ts + self._idle + 1, name))

    def expired(self, series: Mapping[str, Dated], stream_time: int) -> Iterator[str]:
        """The series that have expired by now. Each is to be removed before the next is taken."""
        while self._idle is not None and self._due and self._due[0][0] <= stream_time:
            due, name = heappop(self._due)
            if (found := series.get(name)) is None:
                continue
            last_event_ts = max(found.ts, found.last_event_ts)
            if last_event_ts + self._idle < due:
                yield name
            else:  # it had events since; in the order of their times, whenever they were scheduled
                self.schedule(name, last_event_ts)
