"""All series in short, in memory: the newest value, forecast and alert of each, its scores, and in which order."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.dashboard.topics.messages import Output, Swaps
from model.online.scores import SUMS
from pipeline.formats.alerts import Alert

Reals = npt.NDArray[np.float64]
SPARK = 40
"""Values of a spark line."""
MOST = 200_000
"""Most tracks; those of further series are counted only."""
KEPT_S, MOST_ORDERS = 1.0, 16
"""How long an order of all series holds, and how many are kept."""
DAY, FIRST_OF_WEEKEND = 86_400_000, 5
SURE = 15
"""Values that tell whether weekends are skipped."""
COUNT, ERROR, NAIVE, INTERVALS, INSIDE = (
    SUMS.index(name) for name in ("count", "absolute_error", "naive_absolute_error", "intervals", "inside")
)


@dataclass(slots=True, eq=False)
class Track:
    """A series' target. Times are epoch milliseconds."""

    number: int
    series: str
    target: str
    """Empty where a series has one only."""
    folded: str
    """The series' name as it is searched."""
    ts: int | None = None
    value: float | None = None
    spark: deque[float | None] = field(default_factory=lambda: deque(maxlen=SPARK))
    """The newest values, None where a step is missing."""
    first: int | None = None
    """The time of the spark line's first value."""
    partition: int | None = None
    """Of its forecasts."""
    made: int | None = None
    """The time of the newest forecast's origin."""
    step: int | None = None
    width: float | None = None
    """The mean width of its interval, in units of the series."""
    coverage: float | None = None
    model: str = ""
    source: str = ""
    horizon: int = 0
    workdays: int = 0
    """Values so far from Mondays to Fridays."""
    weekends: int = 0
    """Values so far on Saturdays and Sundays."""
    swaps: Swaps = field(default_factory=Swaps)
    scale: float | None = None
    scored_at: int | None = None
    """When the newest bucket of scores ends."""
    naive_lag: int = 1
    """That of the seasonal naive, in steps."""
    sums: Reals | None = None
    """(M,): scores, over all steps and models."""

    def add_value(self, ts: int, value: float) -> None:
        """Add a value: the newest, or one that is older than all before."""
        if self.ts is None or self.first is None:
            self.ts, self.first, self.value = ts, ts, value
            self.spark.append(value)
        elif ts > self.ts:
            if self.step and ts - self.ts > 1.5 * self.step:
                self.spark.append(None)
            self.spark.append(value)
            self.ts, self.value = ts, value
        elif ts < self.first and len(self.spark) < SPARK:
            if self.step and self.first - ts > 1.5 * self.step:
                self.spark.appendleft(None)
            self.spark.appendleft(value)
            self.first = ts
        else:
            return
        self._count_day(ts)

    def _count_day(self, ts: int) -> None:
        """Count a value's day: a series of many days without a weekend's has steps on business days."""
        weekday = (ts // DAY + 3) % 7
        if weekday >= FIRST_OF_WEEKEND:
            self.weekends += 1
        else:
            self.workdays += 1

    @property
    def on_business_days(self) -> bool:
        """Whether its values skip weekends, as far as they tell."""
        return not self.weekends and self.workdays >= SURE

    def set_forecast(
        self, out: Output, ts: int, values: list[float], lower: list[float] | None, upper: list[float] | None
    ) -> None:
        """The newest forecast is this one, made at `ts`."""
        self.made, self.step, self.horizon = ts, out.step, len(values)
        self.model, self.source, self.coverage = out.model, out.source, out.coverage
        self.width = (sum(upper) - sum(lower)) / len(values) if lower and upper and values else None

    @property
    def relative_width(self) -> float | None:
        """The width relative to the series' scale."""
        return self.width / self.scale if self.width is not None and self.scale else None


class Fleet:
    """The tracks, by series and target."""

    def __init__(self) -> None:
        self.tracks: dict[tuple[str, str], Track] = {}
        self.targets: dict[str, list[str]] = {}
        """Of each series."""
        self.left_out = 0
        """Records of series beyond MOST."""
        self.alerts: dict[tuple[str, str], Alert] = {}
        """The newest of each series, and of each target where it is about one."""
        self._gaps: dict[str, Alert] = {}
        self._by_name: list[Track] = []
        self._orders: dict[tuple[object, ...], tuple[float, list[Track]]] = {}

    def track(self, series: str, target: str) -> Track | None:
        """A track, made if it is not there yet; None beyond the limit."""
        if (found := self.tracks.get((series, target))) is None:
            if len(self.tracks) >= MOST:
                self.left_out += 1
                return None
            found = Track(len(self.tracks), series, target, series.casefold())
            self.tracks[series, target] = found
            self.targets.setdefault(series, []).append(target)
        return found

    def add_alert(self, alert: Alert) -> None:
        """Note an alert, whichever way they are read."""
        place = alert.series, alert.target or ""
        before = self.alerts.get(place)
        ended = before is not None and alert.ts == before.ts and alert.phase == "end"
        if (before is None and len(self.alerts) < MOST) or (before is not None and (alert.ts > before.ts or ended)):
            self.alerts[place] = alert
        if alert.kind == "gap" and place in self.alerts:
            gap = self._gaps.get(alert.series)
            if gap is None or alert.ts > gap.ts:
                self._gaps[alert.series] = alert

    def alert(self, track: Track) -> Alert | None:
        """A track's newest alert."""
        found = self.alerts.get((track.series, ""))
        own = self.alerts.get((track.series, track.target)) if track.target else None
        return own if found is None or (own is not None and own.ts > found.ts) else found

    def is_silent(self, track: Track) -> bool:
        """Whether the service has noticed that a series has no values any more."""
        gap = self._gaps.get(track.series)
        return gap is not None and gap.phase == "begin"

    def of_series(self, series: str) -> Iterator[Track]:
        """The tracks of a series."""
        return (self.tracks[series, target] for target in self.targets.get(series, ()))

    def ordered(self, q: str, sort: str, desc: bool, since: int | None, sums: dict[int, Reals] | None) -> list[Track]:
        """The tracks whose series' names contain `q`, sorted; `sums` (M,) by number are their scores, if not all are
        meant.
        """
        key, now = (q, sort, desc, since), time.monotonic()
        if (kept := self._orders.get(key)) and now - kept[0] < KEPT_S:
            return kept[1]
        wanted = q.casefold()
        if len(self._by_name) != len(self.tracks):
            self._by_name = sorted(self.tracks.values(), key=lambda track: (track.folded, track.target))
        found = [track for track in self._by_name if wanted in track.folded] if wanted else self._by_name[:]
        badness = {track.number: self._place(track, sort, sums) for track in found} if sort != "name" else {}
        if badness:
            missing = [track for track in found if badness[track.number] is None]
            found = [track for track in found if badness[track.number] is not None]
            found.sort(key=lambda track: badness[track.number] or 0.0, reverse=desc)
            found += missing
        elif desc:
            found.reverse()
        if len(self._orders) >= MOST_ORDERS:
            self._orders.clear()
        self._orders[key] = now, found
        return found

    def _place(self, track: Track, sort: str, sums: dict[int, Reals] | None) -> float | None:
        """What a track is sorted by, the first smallest: worst skill, widest interval, newest alert or value first."""
        if sort == "width":
            return None if (width := track.relative_width) is None else -width
        if sort == "alert":
            return -alert.ts if (alert := self.alert(track)) else None
        if sort == "newest":
            return -track.ts if track.ts is not None else None
        of = track.sums if sums is None else sums.get(track.number)
        if of is None or not of[COUNT]:
            return None
        if sort == "coverage":
            return float(of[INSIDE] / of[INTERVALS]) if of[INTERVALS] else None
        if of[NAIVE]:
            return float(1 - of[ERROR] / of[NAIVE])
        return -np.inf if of[ERROR] else np.inf


def means(sums: Reals | None) -> dict[str, float | None]:
    """Mean scores of sums (M,)."""
    if sums is None or not sums[COUNT]:
        return dict.fromkeys(("skill", "mae", "naive_mae", "coverage"))
    count, error, naive, intervals, inside = (float(sums[at]) for at in (COUNT, ERROR, NAIVE, INTERVALS, INSIDE))
    return {
        "skill": 1 - error / naive if naive else None,
        "mae": error / count,
        "naive_mae": naive / count,
        "coverage": inside / intervals if intervals else None,
    }


def row(fleet: Fleet, track: Track, target: str, sums: Reals | None) -> dict[str, Any]:
    """A track as a row of the table; `sums` (M,) are its scores."""
    alert = fleet.alert(track)
    return {
        "series": track.series,
        "target": target,
        "value": track.value,
        "ts": track.ts,
        "step": track.step,
        **means(sums),
        "width": track.relative_width,
        "model": track.model or None,
        "source": track.source or None,
        "alert": None
        if alert is None
        else {
            "ts": alert.ts,
            "since": alert.since,
            "until": alert.ts if alert.phase == "end" else None,
            "kind": alert.kind,
            "phase": alert.phase,
            "text": alert.text,
            "open": alert.phase == "begin",
        },
        "silent": fleet.is_silent(track),
        "spark": list(track.spark),
    }
