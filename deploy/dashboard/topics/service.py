"""How the service is doing, seen from its topics and its group: throughput, latency, lag, and whether it is stuck."""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._recent: list[float] = []
        self.history: dict[str, deque[float | None]] = {
            name: deque(maxlen=HISTORY)
            for name in ("ts", "records_s", "forecasts_s", "lag", "latency_p50_ms", "latency_p99_ms")
        }
        self._mark = (time.monotonic(), 0, 0)
        self.lag: dict[int, int] | None = None
        self.committed: dict[int, Commit] = {}
        self.members: list[Member] | None = None
        self._moved: dict[int, tuple[int, float, float]] = {}
        """By partition: its committed offset, and since when (monotonic, epoch s) it is that."""

    def count(self, kind: str, records: int) -> None:
        """Count a topic's records that were written while we read."""
        self._counts[kind] += records

    def note_latency(self, records: Sequence[Record]) -> None:
        """Forecasts have the times of their input's records."""
        now = time.time() * 1000
        found = [now - record.timestamp for record in records if 0 <= now - record.timestamp < REPLAYED_MS]
        self._latencies.extend(found)
        if len(self._recent) < LATENCIES:
            self._recent += found

    def look(
        self, bounds: Mapping[int, Bounds], committed: Mapping[int, Commit] | None, members: list[Member] | None
    ) -> None:
        """What the log says of the group now; None: it has none, or it is not known."""
        self.members = members
        if committed is None:
            self.lag = None
            return
        now, wall = time.monotonic(), time.time()
        self.committed = dict(committed)
        self.lag = {
            number: max(0, each.end - (committed[number].offset if number in committed else each.start))
            for number, each in bounds.items()
        }
        for number in bounds:
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
        """Of the newest forecasts."""
        p50, p99 = percentiles(self._latencies)
        return {"p50_ms": p50, "p99_ms": p99, "count": len(self._latencies), "what": WHAT}

    @property
    def stuck(self) -> str | None:
        """Which partitions have lag and do not move, in a sentence."""
        now = time.monotonic()
        stuck = [
            (number, wall)
            for number, (_, since, wall) in sorted(self._moved.items())
            if self.lag and self.lag.get(number) and now - since > STUCK_S
        ]
        if not stuck:
            return None
        number, wall = min(stuck, key=lambda each: each[1])
        which = f"Partition {number}" if len(stuck) == 1 else f"{len(stuck)} partitions, such as {number}"
        waiting = sum((self.lag or {})[each] for each, _ in stuck)
        since = time.strftime("%H:%M:%S", time.gmtime(wall))
        nobody = "; the group has no member" if self.members == [] else ""
        verb = "has" if len(stuck) == 1 else "have"
        return f"{which} {verb} not moved since {since} UTC, with {waiting:,} records waiting{nobody}."


def percentiles(latencies: Sequence[float]) -> tuple[float | None, float | None]:
    """The median and the 99th percentile; None if there are none."""
    if not latencies:
        return None, None
    p50, p99 = np.percentile(np.fromiter(latencies, np.float64), (50, 99))
    return round(float(p50), 1), round(float(p99), 1)
