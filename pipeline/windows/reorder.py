"""Buffering of events: until out-of-order ones may have arrived (lateness), or a step is complete (aggregate).

A partition's stream time is the latest time of any of its events so far. A step is released, as one event, when stream
time is `lateness` past it: past the event itself, or past the end of the step that events are aggregated in. Only the
partition's own records advance stream time, so a replay releases the same steps at the same records.
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

import msgspec

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import MAX_FLOAT32, Event
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

    def __init__(self, config: WindowConfig) -> None:
        self._lateness, self._aggregate = config.lateness, config.aggregate
        self._bucket: Grid | None = None if config.aggregate is None else config.grid
        self._pending: dict[str, dict[int, PendingStep]] = {}
        self._due: list[tuple[int, str, int]] = []

    @property
    def next_due(self) -> int:
        """The stream time at which the next step is released; the largest time if none is pending."""
        return self._due[0][0] if self._due else -BEFORE_ALL

    def add(self, event: Event, place: int) -> bool:
        """Buffer an event; False if its step has one already. Raises InvalidEvent for a sum beyond float32."""
        series, ts, values = event
        steps = self._pending.setdefault(series, {})
        if (held := steps.get(place)) is None:
            self._add_step(series, PendingStep(place, ts, 1, list(values)))
            return True
        if self._aggregate is None:
            return False
        held.values = self._aggregated(held, ts, values)
        held.ts, held.count = max(held.ts, ts), held.count + 1
        return True

    def _add_step(self, series: str, pending: PendingStep) -> None:
        self._pending.setdefault(series, {})[pending.place] = pending
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

    def release(self, stream_time: int) -> Iterator[Event]:
        """The steps that are due, in the order of their times. Each is removed when it is yielded."""
        while self._due and self._due[0][0] <= stream_time:
            due, series, place = heappop(self._due)
            step = self._pending.get(series, {}).get(place)
            if step is not None and self._due_time(step) == due:  # else `restore` has replaced it
                del self._pending[series][place]
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

    def restore(self, series: str, steps: Sequence[PendingStep]) -> None:
        """Replace a series' pending steps."""
        self._pending.pop(series, None)
        for each in steps:
            self._add_step(series, msgspec.structs.replace(each, values=list(each.values)))
