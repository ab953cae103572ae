"""Buffering of events: until out-of-order ones may have arrived (lateness), or a step is complete (aggregate).

A partition's stream time is the latest time of any of its events so far. A step is released, as one event, when stream
time is `lateness` past it: past the event itself, or past the end of the step that events are aggregated in. Only the
partition's own records advance stream time, so a replay releases the same steps at the same records. So does a limit of
the steps that wait: beyond it the earliest are released before their time.
"""

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush

import msgspec

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import MAX_FLOAT32, Event
from pipeline.windows.choices import WAITING_LIMIT
from pipeline.windows.grid import WindowConfig
from pipeline.windows.steps import Grid

BEFORE_ALL = -(2**63)


class PendingStep(msgspec.Struct, array_like=True, gc=False):
    """A step of a series that has not been released."""

    place: int
    """Orders the steps of a series: the step's number, or without a grid the event's time."""
    ts: int
    """The latest time of its events, epoch milliseconds."""
    count: int
    """The number of its events."""
    values: list[float]
    """The aggregate of its events' values so far; for a mean their sum."""


class ReorderBuffer:
    """The pending steps of one partition's series."""

    def __init__(self, config: WindowConfig, limit: int = WAITING_LIMIT) -> None:
        """`limit` is the largest number of pending steps; with an aggregate, no fewer than there are series."""
        self._lateness, self._aggregate, self._limit = config.lateness, config.aggregate, limit
        self._waiting = 0
        self.early = 0
        """How many steps were released before their time."""
        self._bucket: Grid | None = None if config.aggregate is None else config.grid
        self._pending: dict[str, dict[int, PendingStep]] = {}
        self._latest: dict[str, int] = {}
        self._due: list[tuple[int, str, int]] = []

    @property
    def next_due(self) -> int:
        """The stream time at which the next step is released: any, above the limit; the largest if none is pending."""
        if self._waiting > self._limit:
            return BEFORE_ALL
        return self._due[0][0] if self._due else -BEFORE_ALL

    def add(self, event: Event, place: int) -> bool:
        """Buffer an event; False if its step has one already. Raises InvalidEvent for a sum beyond float32."""
        series, ts, values = event.series, event.ts, event.values
        held = self._pending.get(series, {}).get(place)
        if held is not None and self._aggregate is None:
            return False
        if held is None:
            self._add_step(series, PendingStep(place, ts, 1, list(values)))
        else:
            held.values = self._aggregated(held, ts, values)
            held.ts, held.count = max(held.ts, ts), held.count + 1
        self._latest[series] = max(self.latest(series), ts)
        return True

    def _add_step(self, series: str, pending: PendingStep) -> None:
        self._pending.setdefault(series, {})[pending.place] = pending
        self._waiting += 1
        heappush(self._due, (self._due_time(pending), series, pending.place))

    def _due_time(self, pending: PendingStep) -> int:
        end = pending.ts if self._bucket is None else self._bucket.end(pending.place)
        return end + self._lateness

    def _aggregated(self, held: PendingStep, ts: int, values: Sequence[float]) -> list[float]:
        pairs = list(zip(held.values, values, strict=True))
        match self._aggregate:
            case "last":
                return held.values if ts < held.ts else list(values)
            case "min" | "max":
                return [(min if self._aggregate == "min" else max)(pair) for pair in pairs]
            case "sum" if not all(-MAX_FLOAT32 <= sum(pair) <= MAX_FLOAT32 for pair in pairs):
                raise InvalidEvent("out_of_range", f"with {values!r} the step's sum does not fit in a float32")
        return [sum(pair) for pair in pairs]

    def release(self, stream_time: int, before: Callable[[str], object] = lambda series: None) -> Iterator[Event]:
        """The steps that are due, in the order of their times. Each is removed when it is yielded; `before` that, it is
        called with the step's series.
        """
        while self._due and (self._due[0][0] <= stream_time or self._waiting > self._limit):
            due, series, place = heappop(self._due)
            step = self._pending.get(series, {}).get(place)
            if step is not None and self._due_time(step) == due:  # else `restore` has replaced it
                before(series)
                del self._pending[series][place]
                self._waiting -= 1
                self.early += due > stream_time
                if not self._pending[series]:
                    del self._pending[series]
                yield Event(series, *self._released(step))

    def _released(self, pending: PendingStep) -> tuple[int, tuple[float, ...]]:
        if self._bucket is None:
            return pending.ts, tuple(pending.values)
        values: Sequence[float] = pending.values
        if self._aggregate == "mean":
            values = [value / pending.count for value in pending.values]
        elif self._aggregate == "count":
            values = [float(pending.count)] * len(pending.values)
        return self._bucket.time(pending.place), tuple(values)

    def state(self, series: str) -> list[PendingStep]:
        """A copy of a series' pending steps, in order."""
        held = self._pending.get(series, {})
        return [msgspec.structs.replace(held[place], values=list(held[place].values)) for place in sorted(held)]

    def latest(self, series: str) -> int:
        """The latest time of any event of a series that was buffered, released since or not."""
        return self._latest.get(series, BEFORE_ALL)

    def forget(self, series: str) -> None:
        """Forget a series, which has no pending steps."""
        self._latest.pop(series, None)

    def restore(self, series: str, steps: Sequence[PendingStep], latest: int) -> None:
        """Replace a series' pending steps, and the latest time of its events."""
        self._latest[series] = latest
        self._waiting -= len(self._pending.pop(series, ()))
        for each in steps:
            self._add_step(series, msgspec.structs.replace(each, values=list(each.values)))
