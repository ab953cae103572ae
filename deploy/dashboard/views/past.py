"""The past's forecasts of a series: those of k steps ahead, the one from any point, and all that were for one time."""

import shlex
from typing import Any

import numpy as np

from deploy.dashboard.topics.fleet import Track
from deploy.dashboard.topics.messages import floats
from deploy.dashboard.topics.state import State
from deploy.dashboard.views.parameters import BadRequest, NotFound, Query
from deploy.dashboard.views.series import MOST_POINTS, between, find_track, forecast_at
from deploy.dashboard.views.times import step_times

NOT_A_NUMBER = b"\0\0\xc0\x7f"
"""As float32, little-endian."""
MOST_ROWS = 5000
GAP = 1.5
"""Steps between two times, above which one is missing."""


def ahead(state: State, query: Query) -> dict[str, Any]:
    """What was forecast k steps ahead, for each time: /api/ahead."""
    with state.lock:
        track, k = find_track(state, query), query.number("k", 1, 1, 100_000)
        since, until, limit = query.time("from"), query.time("to"), query.number("limit", 2000, 1, MOST_POINTS)
        shift, step = k * (track.step or 0), track.step or 0
        where, span = between(
            track, None if since is None else since - shift, None if until is None else until - shift + step
        )
        parts = ", ".join(f"substr({name}, {4 * k - 3}, 4)" for name in ("forecast", "lower", "upper"))
        found = state.store.forecasts.select(
            f"ts, start, step, model, {parts}", f"{where} AND length(forecast) >= {4 * k}", span,
            f"ORDER BY ts DESC LIMIT {limit}",
        )  # fmt: skip
        rows = list({row[0]: row for row in reversed(found)}.values())
        labels: list[str | None] = [state.models.label(row[3]) for row in rows]
        times = [step_times(state, track, row[0], row[1], row[2], k)[-1] for row in rows]
        rows, labels, times = _with_breaks(rows, labels, times, step)
    forecast, lower, upper = (_column([row[at] for row in rows]) for at in (4, 5, 6))
    bounded = any(each is not None for each in lower)
    return {
        "k": k,
        "ts": times,
        "made": [row[0] for row in rows],
        "forecast": forecast,
        "lower": lower if bounded else None,
        "upper": upper if bounded else None,
        "model": labels,
    }


def _with_breaks(
    rows: list[tuple[Any, ...]], labels: list[str | None], times: list[int], step: int
) -> tuple[list[tuple[Any, ...]], list[str | None], list[int]]:
    """Nulls where steps have no forecast, one in each gap, so that no line is drawn through it."""
    filled, named, at = list[tuple[Any, ...]](), list[str | None](), list[int]()
    for row, label, ts in zip(rows, labels, times, strict=True):
        if at and step and ts - at[-1] > GAP * step:
            filled.append((None,) * len(row))
            named.append(None)
            at.append(at[-1] + step)
        filled.append(row)
        named.append(label)
        at.append(ts)
    return filled, named, at


def error(forecast: float | None, actual: float | None) -> float | None:
    """How far off a forecast was, as intervals learn it: above 0 it was too low."""
    return None if forecast is None or actual is None else actual - forecast


def _column(blobs: list[bytes | None]) -> list[float | None]:
    """A float32 each."""
    values = floats(b"".join(blob or NOT_A_NUMBER for blob in blobs)) or []
    return [None if blob is None else value for blob, value in zip(blobs, values, strict=True)]


def origin(state: State, query: Query, bootstrap: str) -> dict[str, Any]:
    """The forecast from a point, and the command that reproduces it: /api/origin."""
    with state.lock:
        track = find_track(state, query)
        found = forecast_at(state, track, query.time("ts"))
        if found is None:
            raise NotFound("no forecast that was made then or before is kept here")
        actual = _actual(state, track, found["times"])
        errors = [error(*each) for each in zip(found["forecast"], actual, strict=True)]
    where = found["position"]
    command = f"tidecast explain {where['topic']} {where['partition']} {where['offset']} --bootstrap {bootstrap}"
    command += f" --of {shlex.quote(track.series)}"
    return {**found, "actual": actual, "error": errors, "explain": command}


def _actual(state: State, track: Track, times: list[int]) -> list[float | None]:
    """The values that came for the steps at these times: each the nearest within half a step."""
    if not times:
        return []
    half = (track.step or 0) // 2
    where, span = between(track, times[0] - half, times[-1] + half)
    rows = state.store.values.select("ts, value", where, span, "ORDER BY ts")
    found: list[float | None] = []
    known = np.array([row[0] for row in rows], np.int64)
    for ts in times:
        at = int(np.abs(known - ts).argmin()) if len(known) else -1
        found.append(rows[at][1] if at >= 0 and abs(rows[at][0] - ts) <= half else None)
    return found


def target(state: State, query: Query) -> dict[str, Any]:
    """All that was forecast for one time, and what came: /api/target."""
    with state.lock:
        track, wanted = find_track(state, query), query.time("ts")
        if wanted is None:
            raise BadRequest("ts: for which time?")
        ts, actual = _nearest(state, track, wanted)
        rows = state.store.forecasts.select(
            "ts, start, step, model, forecast, lower, upper",
            "track = ? AND ts < ? AND ts >= ?",
            (track.number, ts, ts - _reach(track)),
            f"ORDER BY ts DESC LIMIT {MOST_ROWS}",
        )
        found = {}
        for row in rows:
            times = step_times(state, track, row[0], row[1], row[2], len(row[4]) // 4)
            k = int(np.abs(np.array(times) - ts).argmin()) if times else -1
            if k >= 0 and abs(times[k] - ts) <= (row[2] or track.step or 1) / 2:
                found[row[0]] = _answer(state, row, k, actual)
    return {"ts": ts, "actual": actual, "rows": sorted(found.values(), key=lambda row: row["k"])}


def _reach(track: Track) -> int:
    """How far back forecasts of a time may have been made: further than the horizon where steps are uneven."""
    return 2 * (track.horizon + 2) * track.step if track.step else 2**52


def _nearest(state: State, track: Track, wanted: int) -> tuple[int, float | None]:
    """The time of the step nearest to a time, and its value if it came."""
    values, half = state.store.values, (track.step or 2**53) / 2
    sides = (("<=", "DESC"), (">", "ASC"))
    near = [
        row
        for sign, order in sides
        for row in values.select(
            "ts, value", f"track = ? AND ts {sign} ?", (track.number, wanted), f"ORDER BY ts {order} LIMIT 1"
        )
    ]
    nearest = min(near, key=lambda row: abs(row[0] - wanted), default=None)
    if nearest is not None and abs(nearest[0] - wanted) <= half:
        return nearest[0], nearest[1]
    if track.ts is not None and track.step:
        return track.ts + round((wanted - track.ts) / track.step) * track.step, None
    return wanted, None


def _answer(state: State, row: tuple[Any, ...], k: int, actual: float | None) -> dict[str, Any]:
    at = slice(4 * k, 4 * k + 4)
    forecast, lower, upper = (found[0] if (found := floats(blob and blob[at])) else None for blob in row[4:])
    inside = None if actual is None or lower is None or upper is None else lower <= actual <= upper
    return {
        "k": k + 1,
        "made": row[0],
        "forecast": forecast,
        "lower": lower,
        "upper": upper,
        "error": error(forecast, actual),
        "inside": inside,
        "model": state.models.label(row[3]) or None,
    }
