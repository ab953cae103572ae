"""When series are due to be looked at, by their partition's time, and which of them have been idle for too long."""

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush

from pipeline.windows.reorder import BEFORE_ALL


class Deadlines:
    """A time for each of a partition's series, which moves on while the series has events."""

    def __init__(self) -> None:
        self._due: list[tuple[int, str]] = []

    @property
    def next_due(self) -> int:
        """The stream time at which the next series may be due."""
        return self._due[0][0] if self._due else -BEFORE_ALL

    def schedule(self, due: int, name: str) -> None:
        """Look at a series then."""
        heappush(self._due, (due, name))

    def passed(self, stream_time: int, due_of: Callable[[str], int | None]) -> Iterator[tuple[int, str]]:
        """The series that are due, and when, in the order of their times, whenever they were scheduled.

        `due_of` is when a series is due by now; None: never. Each is to be dealt with before the next is taken.
        """
        while self.next_due <= stream_time:
            scheduled, name = heappop(self._due)
            if (due := due_of(name)) is None:
                continue
            if due <= scheduled:
                yield scheduled, name
            else:
                self.schedule(due, name)


class Expiries(Deadlines):
    """When a partition's series expire: `idle` milliseconds after their last event; None: never."""

    def __init__(self, idle: int | None) -> None:
        super().__init__()
        self._idle = idle

    def add(self, name: str, last_event_ts: int) -> None:
        """Add a series whose last event was at this time."""
        if self._idle is not None:
            self.schedule(last_event_ts + self._idle + 1, name)

    def expired(self, latest: Callable[[str], int | None], stream_time: int) -> Iterator[str]:
        """The series that have expired by now. Each is to be removed before the next is taken.

        `latest` is the time of a series' last event, epoch milliseconds; None of one that is gone.
        """

        def due(name: str) -> int | None:
            last = latest(name)
            return None if last is None or self._idle is None else last + self._idle + 1

        return (name for _, name in self.passed(stream_time, due))


Expired = list[tuple[int, str, int]]
"""Series that have expired: after how many windows of the next take, their names, and by which offset."""


def numbered(
    series: Sequence[str], expired: Expired, numbers: dict[str, int], new: Callable[[str], int]
) -> tuple[list[int], list[tuple[str, int, int]]]:
    """The number of each window's series, and the name, number and offset of those that have expired among them.

    `numbers` are kept up to date: a series that expires and comes back gets a `new` one.
    """
    found, gone, left = list[int](), list[tuple[str, int, int]](), iter(expired)
    place, name, offset = next(left, (-1, "", 0))
    for row in range(len(series) + 1):
        while row == place:
            if (number := numbers.pop(name, None)) is not None:
                gone.append((name, number, offset))
            place, name, offset = next(left, (-1, "", 0))
        if row < len(series):
            if (number := numbers.get(series[row])) is None:
                number = numbers[series[row]] = new(series[row])
            found.append(number)
    return found, gone
