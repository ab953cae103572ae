"""Events that wait: for others that are out of order (lateness), or until their step is whole (aggregate).

A partition's stream time is the latest time of any event that it has brought. A step is released, as one event, when
stream time has come `lateness` past it: past the event itself, or past the end of the step that events are put together
in. Only the partition's own records move stream time, so a replay releases the same steps at the same records.
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

import msgspec

from pipeline.formats.errors import InvalidEvent
from pipeline.formats.events import MAX_FLOAT32, Event
from pipeline.windows.grid import Grid, WindowConfig

BEFORE_ALL = -(2**63)


class PendingStep(msgspec.Struct, array_like=True, gc=False):
    """What waits for one step of a series."""

    place: int
    """What orders it among its series' steps: the step's number, or without a grid the event's time."""
    ts: int
    """The latest time of its events, epoch milliseconds."""
    count: int
    """How many events there are in it."""
    values: list[float]
    """The events' values together; for a mean their sum."""


class ReorderBuffer:
    """The waiting steps of one partition's series."""

    def __init__(self, config: WindowConfig) -> None:
        self._lateness, self._aggregate = config.lateness, config.aggregate
        self._bucket: Grid | None = None if config.aggregate is None else config.grid
        self._waiting: dict[str, dict[int, PendingStep]] = {}
        self._due: list[tuple[int, str, int]] = []

    @property
    def next_due(self) -> int:
        """The stream time at which the next step is released; far away where nothing waits."""
        return self._due[0][0] if self._due else -BEFORE_ALL

    def add(self, event: Event, place: int) -> bool:
        """Keep an event; False if its step is taken already. Raises InvalidEvent for a sum beyond float32."""
        series, ts, values = event
        steps = self._waiting.setdefault(series, {})
        if (held := steps.get(place)) is None:
            self._hold(series, PendingStep(place, ts, 1, list(values)))
            return True
        if self._aggregate is None:
            return False
        held.values = self._together(held, ts, values)
        held.ts, held.count = max(held.ts, ts), held.count + 1
        return True

    def _hold(self, series: str, waiting: PendingStep) -> None:
        self._waiting.setdefault(series, {})[waiting.place] = waiting
        heappush(self._due, (self._due_time(waiting), series, waiting.place))

    def _due_time(self, waiting: PendingStep) -> int:
        end = waiting.ts if self._bucket is None else self._bucket.time(waiting.place + 1)
        return end + self._lateness

    def _together(self, held: PendingStep, ts: int, values: Sequence[float]) -> list[float]:
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
        """The steps that are due, in the order of their times: each leaves as it is given."""
        while self._due and self._due[0][0] <= stream_time:
            due, series, place = heappop(self._due)
            waiting = self._waiting.get(series, {}).get(place)
            if waiting is not None and self._due_time(waiting) == due:  # else it was restored to something else
                del self._waiting[series][place]
                if not self._waiting[series]:
                    del self._waiting[series]
                yield Event(series, *self._step(waiting))

    def _step(self, waiting: PendingStep) -> tuple[int, tuple[float, ...]]:
        if self._bucket is None:
            return waiting.ts, tuple(waiting.values)
        values: Sequence[float] = waiting.values
        if self._aggregate == "mean":
            values = [value / waiting.count for value in waiting.values]
        elif self._aggregate == "count":
            values = [float(waiting.count)] * len(waiting.values)
        return self._bucket.time(waiting.place), tuple(values)

    def state(self, series: str) -> list[PendingStep]:
        """A copy of what waits of a series, in the order of its steps."""
        held = self._waiting.get(series, {})
        return [msgspec.structs.replace(held[place], values=list(held[place].values)) for place in sorted(held)]

    def restore(self, series: str, waiting: Sequence[PendingStep]) -> None:
        """Let this wait of a series, and nothing else."""
        self._waiting.pop(series, None)
        for each in waiting:
            self._hold(series, msgspec.structs.replace(each, values=list(each.values)))
