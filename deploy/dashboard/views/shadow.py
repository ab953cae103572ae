"""A shadow beside the model that serves: both graded here, on the same origins and steps, as no service does it.

Steps are those that have come; errors are relative to each series' scale.
"""

from collections import defaultdict
from typing import Any

from deploy.dashboard.topics.fleet import Track
from deploy.dashboard.topics.messages import floats
from deploy.dashboard.topics.state import State
from deploy.dashboard.views.times import step_times

NEWEST = 2_000
"""Forecasts of the shadow that are graded."""
STORED = "track, ts, start, step, model, forecast"
Sums = dict[str, list[float]]
"""By model: count, its absolute errors, and the naive forecast's."""


def shadow_rows(state: State) -> list[dict[str, Any]]:
    """A row for each shadow, and for what served at the same origins; none if there is no shadow."""
    rows = state.store.shadow.select(STORED, "1", (), f"ORDER BY rowid DESC LIMIT {NEWEST}")
    by_track: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for row in rows:
        by_track[row[0]].append(row)
    tracks = {track.number: track for track in state.fleet.tracks.values() if track.number in by_track}
    sums: Sums = defaultdict(lambda: [0.0, 0.0, 0.0])
    for number, found in by_track.items():
        if tracks[number].scale:
            _grade(state, tracks[number], found, sums)
    since, until = min((row[1] for row in rows), default=0), max((row[1] for row in rows), default=0)
    return [_row(model, *each, since=since, until=until) for model, each in sums.items() if each[0]]


def _grade(state: State, track: Track, rows: list[tuple[Any, ...]], sums: Sums) -> None:
    """Add the errors of a track's forecasts, the shadow's and those beside them."""
    first, last, back = rows[-1][1], rows[0][1], track.naive_lag * (track.step or 0)
    span = (track.number, first - back, last + (track.horizon + 2) * 2 * (track.step or 0))
    values = dict(state.store.values.select("ts, value", "track = ? AND ts BETWEEN ? AND ?", span))
    served = {
        row[1]: row
        for row in state.store.forecasts.select(STORED, "track = ? AND ts BETWEEN ? AND ?", (track.number, first, last))
    }
    for row in rows:
        if row[1] not in served:
            continue
        times = step_times(state, track, row[1], row[2], row[3], len(row[5]) // 4)
        pairs = [(floats(each[5]) or [], state.models.label(each[4])) for each in (row, served[row[1]])]
        for k, ts in enumerate(times):
            naive = values.get(ts - (k // track.naive_lag + 1) * back)
            if (actual := values.get(ts)) is None or naive is None:
                continue
            for forecast, label in pairs:
                if k < len(forecast):
                    _add(sums[label], abs(forecast[k] - actual), abs(naive - actual), track.scale or 1.0)


def _add(sums: list[float], error: float, naive: float, scale: float) -> None:
    sums[0] += 1
    sums[1] += error / scale
    sums[2] += naive / scale


def _row(model: str, count: float, error: float, naive: float, *, since: int, until: int) -> dict[str, Any]:
    return {
        "model": model,
        "count": int(count),
        "mae": error / count,
        "naive_mae": naive / count,
        "skill": 1 - error / naive if naive else None,
        **dict.fromkeys(("coverage", "width", "winkler", "unscored")),
        "since": since,
        "until": until,
    }
