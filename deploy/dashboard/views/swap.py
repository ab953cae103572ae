"""Did the last swap of models help, and how sure is that: skill as long after it as before it.

S series   B blocks: parts of event time, or series   R resamples
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.dashboard.topics.state import State
from tidecast.times import format_time

Reals = npt.NDArray[np.float64]
RESAMPLES, LEVELS = 2000, (0.05, 0.95)
FEWEST = 8
"""Blocks without which no interval is told."""
MOST = 40
"""Parts of the time on each side."""
COUNT, ERROR, NAIVE, INTERVALS, INSIDE = range(5)


@dataclass(frozen=True, slots=True)
class Side:
    """The buckets of one model: (N,) each bucket's track and start, (N,5) its sums relative to the series' scale."""

    tracks: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    sums: Reals
    since: int
    until: int

    def of(self, tracks: set[int]) -> "Side":
        """Those of some tracks only."""
        kept = np.isin(self.tracks, list(tracks))
        return Side(self.tracks[kept], self.starts[kept], self.sums[kept], self.since, self.until)

    def by_time(self) -> Reals:
        """(B,5): sums by part of the time."""
        width = max(1, -(-(self.until - self.since) // MOST))
        return _grouped((self.starts - self.since) // width, self.sums)

    def by_track(self) -> dict[int, Reals]:
        """(5,) by track."""
        numbers = np.unique(self.tracks)
        return dict(zip(numbers.tolist(), _grouped(self.tracks, self.sums), strict=True))

    def facts(self) -> dict[str, Any]:
        """Its means, as the page shows them."""
        whole = self.sums.sum(axis=0)
        return {
            "skill": float(1 - whole[ERROR] / whole[NAIVE]) if whole[NAIVE] else None,
            "coverage": float(whole[INSIDE] / whole[INTERVALS]) if whole[INTERVALS] else None,
            "count": round(float(whole[COUNT])),
            "from": self.since,
            "to": self.until,
        }


def _grouped(keys: npt.NDArray[np.int64], sums: Reals) -> Reals:
    groups, at = np.unique(keys, return_inverse=True)
    found = np.zeros((len(groups), sums.shape[1]))
    np.add.at(found, at, sums)
    return found


def last_swap(state: State) -> dict[str, Any] | None:
    """The last swap, the skill of the model before as long before it as that of the other after it, and the difference.

    After it begins once all scored steps are of the new model: before that only its short steps are scored.
    """
    swaps = state.models.swaps
    if not swaps:
        return None
    swap: dict[str, Any] = swaps[-1]
    reach = _reach(state)
    after = _side(state, swap["to"], swap["ts"] + reach, 2**62)
    span = after.until - after.since
    before = _side(state, swap["from"], swap["ts"] - span, swap["ts"])
    paired, left_out = _paired(before, after)
    before, after = before.of(paired), after.of(paired)
    found = {**swap, "before": before.facts(), "after": after.facts(), "series": len(paired), "left_out": left_out}
    interval = _interval(before, after)
    return found | _verdict(found, interval, swap["ts"] + reach)


def _reach(state: State) -> int:
    """How far ahead forecasts are scored, milliseconds, of most series."""
    steps = [track.step for track in state.fleet.tracks.values() if track.step and track.sums is not None]
    return round(float(np.median(steps))) * state.graded.last_step if steps else 0


def _side(state: State, model: str, since: int, until: int) -> Side:
    """A model's buckets that lie in [since, until]."""
    rows = state.store.sums.select(
        "track, start, until, count, error, naive, intervals, inside",
        "model = ? AND start >= ? AND until <= ?",
        (model, since, until),
    )
    scales = {track.number: track.scale for track in state.fleet.tracks.values() if track.scale}
    rows = [row for row in rows if row[0] in scales]
    sums = np.array([row[3:] for row in rows], np.float64).reshape(-1, 5)
    sums[:, [ERROR, NAIVE]] /= np.array([scales[row[0]] for row in rows], np.float64)[:, None]
    end = until if until < 2**62 else max((row[2] for row in rows), default=since)
    tracks, starts = (np.array([row[at] for row in rows], np.int64) for at in (0, 1))
    return Side(tracks, starts, sums, since, end)


def _paired(before: Side, after: Side) -> tuple[set[int], int]:
    """The tracks that both sides have, and how many are left out: of one side only, or without any naive error."""
    one, other = before.by_track(), after.by_track()
    paired = {track for track in one.keys() & other.keys() if one[track][NAIVE] > 0 and other[track][NAIVE] > 0}
    return paired, len((one.keys() | other.keys()) - paired)


def _interval(before: Side, after: Side) -> tuple[float, float] | None:
    """Bounds of the difference of skill: parts of the time are drawn anew, or series where there are few of those."""
    random, sides = np.random.default_rng(0), (before, after)
    times = [side.by_time() for side in sides]
    if min(map(len, times)) >= FEWEST:
        drawn = [_drawn(random, len(part)) @ part for part in times]
    else:
        series = [np.array([sums for _, sums in sorted(side.by_track().items())]) for side in sides]
        if len(series[0]) < FEWEST:
            return None
        weights = _drawn(random, len(series[0]))
        drawn = [weights @ part for part in series]
    with np.errstate(divide="ignore", invalid="ignore"):
        skills = [1 - part[:, ERROR] / part[:, NAIVE] for part in drawn]
    differences = skills[1] - skills[0]
    low, high = np.nanquantile(differences[np.isfinite(differences)], LEVELS)
    return float(low), float(high)


def _drawn(random: np.random.Generator, blocks: int) -> Reals:
    """(R,B): how often each block is drawn."""
    return random.multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES).astype(np.float64)


def _verdict(found: dict[str, Any], interval: tuple[float, float] | None, begin: int) -> dict[str, Any]:
    """What the numbers say."""
    one, other = found["before"]["skill"], found["after"]["skill"]
    difference = None if one is None or other is None else other - one
    if difference is None or interval is None:
        if other is None:
            start = format_time(begin, "seconds")
            why = f"all scored steps are of {found['to']} from {start} UTC on, and no bucket is closed since"
        elif one is None:
            why = f"no scores of {found['from']} of as long before are kept, of the same series"
        else:
            why = f"there are fewer than {FEWEST} parts of the time, and fewer than {FEWEST} series, to compare"
        early = {"verdict": "too early", "why": f"Too early to say: {why}."}
        return {"difference": difference, "low": None, "high": None, **early}
    low, high = interval
    verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    why = (
        f"Skill {one:.3f} before ({found['before']['count']:,} values), {other:.3f} after "
        f"({found['after']['count']:,}): {difference:+.3f}, and with 90 % confidence between {low:+.3f} "
        f"and {high:+.3f}"
    )
    left_out = f"; {found['left_out']:,} series left out" if found["left_out"] else ""
    return {"difference": difference, "low": low, "high": high, "verdict": verdict, "why": f"{why}{left_out}."}
