"""How the service is doing, seen from its topics and its group: throughput, latency, lag, and what does not move."""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploy.dashboard.topics.recent import SPAN_S, Recent
from pipeline.log import Bounds, Commit, Member, Record

HISTORY = 720
"""Points of history: an hour, one each EVERY_S."""
EVERY_S = 5.0
OVER_S = 30
"""Seconds over which the throughput is a mean."""
LATENCIES = 2_000
"""Newest latencies that percentiles are of."""
REPLAYED_MS = 600_000
"""A record whose time lies further back has been replayed: its latency says nothing."""
STUCK_S = 15.0
"""Seconds that a partition with lag may take without a commit."""
WHAT = "from a record's time until its forecast could be read here, looked for four times a second"


class Service:
    """Counters and gauges."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._seconds: deque[tuple[float, int, int]] = deque(maxlen=OVER_S + 1)
        self.recent, self.refused = Recent(), Recent()
        """Records by their topic's kind, and dead letters by reason."""
        self._read_at: dict[str, float] = {}
        """By kind: when the newest record was read that was written while we read, epoch seconds."""
        self._written_at: dict[str, float] = {}
        """By kind: the newest record's own time, epoch seconds."""
        self._latencies: deque[tuple[float, float]] = deque(maxlen=LATENCIES)
        """When each was measured, epoch seconds, and milliseconds."""
        self._recent: list[float] = []
        self.history: dict[str, deque[float | None]] = {
            name: deque(maxlen=HISTORY)
            for name in ("ts", "records_s", "forecasts_s", "lag", "latency_p50_ms", "latency_p99_ms")
        }
        self._mark = (time.monotonic(), 0, 0)
        self.lag: dict[int, int] | None = None
        self.committed: dict[int, Commit] = {}
        self.members: list[Member] | None = None
        self.nobody_since: float | None = None
        """Since when the group has no member, epoch seconds."""
        self._moved: dict[int, tuple[int, float, float]] = {}
        """By partition: its committed offset, and since when (monotonic, epoch s) it is that."""

    def count(self, kind: str, records: Sequence[Record]) -> None:
        """Count a topic's records that were written while we read."""
        self._counts[kind] += len(records)
        self.recent.add(kind, len(records))
        self._read_at[kind] = time.time()
        self._note_time(kind, records)

    def count_skipped(self, kind: str, records: int, *, lost: bool) -> None:
        """Count those that come too fast to be read now, or (`lost`) ever."""
        self._counts[kind] += records
        if lost:
            self.recent.add(kind, records)

    def _note_time(self, kind: str, records: Sequence[Record]) -> None:
        newest = max(record.timestamp for record in records) / 1000
        self._written_at[kind] = max(newest, self._written_at.get(kind, newest))

    def count_past(self, kind: str, records: Sequence[Record]) -> None:
        """Count those of the last minutes that were written before."""
        self._note_time(kind, records)
        first = (time.time() - SPAN_S) * 1000
        for record in records:
            if record.timestamp >= first:
                self.recent.add(kind, 1, record.timestamp / 1000)

    @property
    def last_forecast(self) -> float | None:
        """When the last forecast was made, epoch seconds: as we saw it, or, where records have the clock's times, as it
        says itself. None if neither is known.
        """
        seen, now = self._read_at.get("output"), time.time()
        written, of_input = (self._written_at.get(kind) for kind in ("output", "input"))
        if seen is None and written is not None and of_input is not None and abs(now - of_input) < REPLAYED_MS / 1000:
            seen = min(written, now)
        return seen

    def note_latency(self, records: Sequence[Record]) -> None:
        """Forecasts have the times of their input's records."""
        now = time.time() * 1000
        found = [now - record.timestamp for record in records if 0 <= now - record.timestamp < REPLAYED_MS]
        self._latencies.extend((now / 1000, latency) for latency in found)
        if len(self._recent) < LATENCIES:
            self._recent += found

    def look(
        self, ends: Mapping[int, Bounds], committed: Mapping[int, Commit] | None, members: list[Member] | None
    ) -> None:
        """What the log says of the group now; None: it has none, or it is not known.

        Each partition's end is after its newest record, where that is known: a transaction's marker is no record.
        """
        now, wall = time.monotonic(), time.time()
        self.nobody_since = (self.nobody_since or wall) if members == [] else None
        self.members = members
        if committed is None:
            self.lag = None
            return
        self.committed = dict(committed)
        self.lag = {
            number: max(0, each.end - (committed[number].offset if number in committed else each.start))
            for number, each in ends.items()
        }
        for number in ends:
            at = committed[number].offset if number in committed else -1
            if number not in self._moved or self._moved[number][0] != at or not self.lag[number]:
                self._moved[number] = at, now, wall

    def tick(self) -> None:
        """To be called again and again: notes the counts each second, and each EVERY_S a point of history."""
        now = time.monotonic()
        records, forecasts = self._counts["input"], self._counts["output"]
        if not self._seconds or now - self._seconds[-1][0] >= 1:
            self._seconds.append((now, records, forecasts))
        then, records_then, forecasts_then = self._mark
        if now - then < EVERY_S:
            return
        p50, p99 = percentiles(self._recent)
        self._recent = []
        points = {
            "ts": round(time.time() * 1000),
            "records_s": (records - records_then) / (now - then),
            "forecasts_s": (forecasts - forecasts_then) / (now - then),
            "lag": None if self.lag is None else sum(self.lag.values()),
            "latency_p50_ms": p50,
            "latency_p99_ms": p99,
        }
        for name, value in points.items():
            self.history[name].append(value)
        self._mark = now, records, forecasts

    @property
    def throughput(self) -> dict[str, float]:
        """Records and forecasts a second, lately."""
        if not self._seconds:
            return {"records_s": 0.0, "forecasts_s": 0.0, "over_s": 0.0}
        then, records, forecasts = self._seconds[0]
        over = max(time.monotonic() - then, 1e-9)
        return {
            "records_s": (self._counts["input"] - records) / over,
            "forecasts_s": (self._counts["output"] - forecasts) / over,
            "over_s": round(over, 1),
        }

    @property
    def latency(self) -> dict[str, Any]:
        """Of the forecasts of the last minutes."""
        found = [ms for at, ms in self._latencies if at >= time.time() - SPAN_S]
        p50, p99 = percentiles(found)
        newest = round(self._latencies[-1][0] * 1000) if self._latencies else None
        return {
            "p50_ms": p50,
            "p99_ms": p99,
            "count": len(found),
            "newest_ts": newest,
            "over_s": SPAN_S,
            "what": WHAT,
        }

    @property
    def stuck(self) -> tuple[float, str] | None:
        """Since when partitions have lag and do not move, epoch seconds, and which, in a sentence."""
        now = time.monotonic()
        stuck = [
            (number, wall)
            for number, (_, since, wall) in sorted(self._moved.items())
            if self.lag and self.lag.get(number) and now - since > STUCK_S
        ]
        if not stuck:
            return None
        number, wall = min(stuck, key=lambda each: each[1])
        which = f"Partition {number}" if len(stuck) == 1 else f"{len(stuck)} partitions, such as {number},"
        waiting = sum((self.lag or {})[each] for each, _ in stuck)
        nobody = "; the group has no member" if self.members == [] else ""
        verb = "has" if len(stuck) == 1 else "have"
        return wall, f"{which} {verb} not moved since {clock(wall)}, with {waiting:,} records waiting{nobody}."


def clock(wall: float) -> str:
    """A time, epoch seconds, for a sentence; with its date if it is not of the last hours."""
    form = "%H:%M:%S UTC" if time.time() - wall < 43_200 else "%Y-%m-%d %H:%M UTC"
    return time.strftime(form, time.gmtime(wall))


def percentiles(latencies: Sequence[float]) -> tuple[float | None, float | None]:
    """The median and the 99th percentile; None if there are none."""
    if not latencies:
        return None, None
    p50, p99 = np.percentile(np.fromiter(latencies, np.float64), (50, 99))
    return round(float(p50), 1), round(float(p99), 1)
