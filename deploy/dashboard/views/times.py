"""The times of a forecast's steps, as far as the topics tell them."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.windows.steps import Grid

if TYPE_CHECKING:
    from deploy.dashboard.topics.fleet import Track
    from deploy.dashboard.topics.state import State

DAY = 86_400_000
MONTHS = {
    28: 1,
    29: 1,
    30: 1,
    31: 1,
    59: 2,
    60: 2,
    61: 2,
    62: 2,
    90: 3,
    91: 3,
    92: 3,
    181: 6,
    184: 6,
    182: 6,
    365: 12,
    366: 12,
}
"""Months of a step, by its days."""


def step_times(state: "State", track: "Track", ts: int, start: int | None, step: int | None, count: int) -> list[int]:
    """The times of a forecast's `count` steps.

    Messages of earlier versions have neither start nor step: those are then as far apart as the series' values are.
    """
    if step is None or start is None:
        step = step or track.step or _spacing(state, track)
        start = ts + step if start is None else start
    if step % DAY == 0 and (months := MONTHS.get(step // DAY)) and _begins_month(start):
        grid = Grid.parse(f"{months}mo")
        first = np.array([grid.index(start)])
        return [int(each) for each in grid.time(first + np.arange(count))]
    if step in (DAY, 3 * DAY) and track.on_business_days:
        return _workdays(start, count)
    return list(range(start, start + step * count, step)) if step else [start] * count


def _begins_month(ts: int) -> bool:
    return bool(np.datetime64(ts, "ms") == np.datetime64(ts, "ms").astype("datetime64[M]"))


def _workdays(start: int, count: int) -> list[int]:
    day = np.datetime64(start // DAY, "D")
    days = np.busday_offset(day, np.arange(count), roll="forward")
    return [int(each) * DAY + start % DAY for each in days.astype(np.int64)]


def _spacing(state: "State", track: "Track") -> int:
    """How far apart a series' values mostly are, milliseconds; 1 if it is not known."""
    rows = state.store.values.select("ts", "track = ?", (track.number,), "ORDER BY ts DESC LIMIT 50")
    gaps = -np.diff(np.array([row[0] for row in rows], np.int64))
    return int(np.median(gaps)) if len(gaps) else 1
