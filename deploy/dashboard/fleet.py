"""All series in short, in memory: the newest value, forecast and alert of each, its scores, and in which order."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from model.online.scores import SUMS
from pipeline.formats.alerts import Alert

SPARK = 40
"""Values of a spark line."""
MOST = 200_000
"""Most tracks; those of further series are counted only."""
KEPT_S = 1.0
"""How long an order of all series holds."""
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
    spark: deque[float] = field(default_factory=lambda: deque(maxlen=SPARK))
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
    """Values so far on working days; below zero: there was one on a weekend."""
    scale: float | None = None
    sums: npt.NDArray[np.float64] | None = None
    """(M,): scores, over all steps and models."""
    alert: Alert | None = None
    """The newest."""
    silent: bool = False

    def score(self, over: npt.NDArray[np.float64] | None = None) -> dict[str, float | None]:
        """Mean scores: those of all buckets that were read, or of sums (M,)."""
        sums = self.sums if over is None else over
        if sums is None or not sums[COUNT]:
            return {"skill": None, "mae": None, "naive_mae": None, "coverage": None}
        count, error, naive = (float(sums[each]) for each in (COUNT, ERROR, NAIVE))
        inside = float(sums[INSIDE] / sums[INTERVALS]) if sums[INTERVALS] else None
        skill = 1 - error / naive if naive else None
        return {"skill": skill, "mae": error / count, "naive_mae": naive / count, "coverage": inside}

    @property
    def relative_width(self) -> float | None:
        """The width relative to the series' scale."""
        return self.width / self.scale if self.width is not None and self.scale else None


class Fleet:
    """The tracks, by series and target."""

    def __init__(self) -> None:
        self.tracks: dict[tuple[str, str], Track] = {}
        self.by_number: dict[int, Track] = {}
        self.targets: dict[str, list[str]] = {}
        """Of each series."""
        self.left_out = 0
        """Records of series beyond MOST."""
        self.version = 0
        """Counts changes."""
        self._orders: dict[tuple[object, ...], tuple[float, list[Track]]] = {}

    def track(self, series: str, target: str) -> Track | None:
        """A track, made if it is not there yet; None beyond the limit."""
        if (found := self.tracks.get((series, target))) is None:
            if len(self.tracks) >= MOST:
                self.left_out += 1
                return None
            found = Track(len(self.tracks), series, target, series.casefold())
            self.tracks[series, target] = self.by_number[found.number] = found
            self.targets.setdefault(series, []).append(target)
        return found

    def of_series(self, series: str) -> Iterator[Track]:
        """The tracks of a series."""
        return (self.tracks[series, target] for target in self.targets.get(series, ()))

    def ordered(
        self, q: str, sort: str, desc: bool, since: int | None, sums: dict[int, npt.NDArray[np.float64]] | None
    ) -> list[Track]:
        """The tracks whose series' names contain `q`, sorted; `sums` (M,) by number are their scores, if not all are
        meant.
        """
        key, now = (q, sort, desc, since), time.monotonic()
        if (kept := self._orders.get(key)) and now - kept[0] < KEPT_S:
            return kept[1]
        wanted = q.casefold()
        found = [track for track in self.tracks.values() if wanted in track.folded]
        found.sort(key=lambda track: (track.folded, track.target))
        badness = {track.number: _place(track, sort, sums) for track in found} if sort != "name" else {}
        if badness:
            missing = [track for track in found if badness[track.number] is None]
            found = [track for track in found if badness[track.number] is not None]
            found.sort(key=lambda track: badness[track.number] or 0.0, reverse=desc)
            found += missing
        elif desc:
            found.reverse()
        if len(self._orders) > 50:
            self._orders.clear()
        self._orders[key] = now, found
        return found


def _place(track: Track, sort: str, sums: dict[int, npt.NDArray[np.float64]] | None) -> float | None:
    """What a track is sorted by, the first smallest: worst skill, widest interval, newest alert or value first."""
    if sort == "width":
        return None if (width := track.relative_width) is None else -width
    if sort == "alert":
        return -track.alert.ts if track.alert else None
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


def row(track: Track, target: str, sums: npt.NDArray[np.float64] | None) -> dict[str, Any]:
    """A track as a row of the table; `sums` (M,) are its scores."""
    alert = track.alert
    return {
        "series": track.series,
        "target": target,
        "value": track.value,
        "ts": track.ts,
        "step": track.step,
        **track.score(sums if sums is not None else np.zeros(len(SUMS))),
        "width": track.relative_width,
        "model": track.model or None,
        "source": track.source or None,
        "alert": None
        if alert is None
        else {
            "ts": alert.ts,
            "kind": alert.kind,
            "phase": alert.phase,
            "text": alert.text,
            "open": alert.phase == "begin",
        },
        "silent": track.silent,
        "spark": list(track.spark),
    }
