"""A series as the page shows it: its values, its newest forecast, what was found in it, and its scores."""

from typing import Any

import numpy as np

from deploy.dashboard.topics.fleet import Track
from deploy.dashboard.topics.messages import floats
from deploy.dashboard.topics.state import State
from deploy.dashboard.views.parameters import BadRequest, NotFound, Query
from deploy.dashboard.views.scores import scores
from deploy.dashboard.views.times import step_times
from pipeline.formats.alerts import decode_alert

MOST_POINTS = 10_000
FIRST_POINTS = 200
"""Values that a stream begins with."""
ALERTS, NEW_ALERTS = 200, 20
STORED = "ts, start, step, model, coverage, source, partition, number, forecast, lower, upper"
"""The columns of a forecast in the store."""
LEFT_OUT = "older forecasts are no longer kept here; the topic may still have them"


def find_track(state: State, query: Query) -> Track:
    """The track that a request is about. Raises BadRequest, NotFound."""
    series, target = query.text("series"), query.text("target")
    if series is None:
        raise BadRequest("series: which one?")
    for track in state.fleet.of_series(series):
        if not target or target == target_name(state, track):
            return track
    raise NotFound(f"no series {series!r}" + (f" with a target {target!r}" if target else ""))


def target_name(state: State, track: Track) -> str:
    """What a track's target is called."""
    return track.target or state.values.name


def between(track: Track, since: int | None, until: int | None) -> tuple[str, tuple[int, ...]]:
    """The condition of a track's rows of a time, ends included, and its values."""
    where, values = "track = ?", [track.number]
    for sign, bound in ((">=", since), ("<=", until)):
        if bound is not None:
            where += f" AND ts {sign} ?"
            values.append(bound)
    return where, tuple(values)


def series_view(state: State, query: Query) -> dict[str, Any]:
    """All of a series that is not live: /api/series."""
    with state.lock:
        track = find_track(state, query)
        since, until, limit = query.time("from"), query.time("to"), query.number("limit", 2000, 1, MOST_POINTS)
        values, name = values_between(state, track, since, until, limit), target_name(state, track)
        first = values["ts"][0] if values["ts"] else since
        return {
            "series": track.series,
            "target": name,
            "targets": [target_name(state, each) for each in state.fleet.of_series(track.series)],
            "horizon": track.horizon or None,
            "step": track.step,
            "coverage": track.coverage,
            "model": track.model or None,
            "source": track.source or None,
            "values": values,
            "anomalies": anomalies(state, track, first, until),
            "forecast": forecast_at(state, track, None),
            "alerts": alerts(state, track, since),
            "swaps": state.models.named(track.swaps),
            "scores": scores(state.graded.of_series(track.series, name, query.time("since"))),
            "history": _history(state, track),
        }


def _history(state: State, track: Track) -> dict[str, Any]:
    """Which forecasts are kept."""
    rows = state.store.forecasts.select("min(ts), max(ts), count(*)", "track = ?", (track.number,))
    spans = [row for row in rows if row[2]]
    return {
        "from": min((row[0] for row in spans), default=None),
        "to": max((row[1] for row in spans), default=None),
        "forecasts": sum(row[2] for row in spans),
        "left_out": LEFT_OUT if state.store.forecasts.dropped else None,
    }


def points(state: State, query: Query, cursor: int | None) -> tuple[dict[str, Any], int | None]:
    """What is new of a series since `cursor`, the newest time that was sent; and that time now."""
    with state.lock:
        track = find_track(state, query)
        since = None if cursor is None else cursor + 1
        values = values_between(state, track, since, None, FIRST_POINTS if cursor is None else MOST_POINTS)
        first = values["ts"][0] if values["ts"] else since
        new = {
            "values": values,
            "anomalies": anomalies(state, track, first, None),
            "forecast": forecast_at(state, track, None),
            "alerts": alerts(state, track, None)[:NEW_ALERTS],
        }
        return new, values["ts"][-1] if values["ts"] else cursor


def values_between(state: State, track: Track, since: int | None, until: int | None, limit: int) -> dict[str, Any]:
    """A time's values; if there are more than `limit`, the newest, or from `since` on the extremes of equal parts."""
    (where, span), values = between(track, since, until), state.store.values
    count = sum(row[0] for row in values.select("count(*)", where, span)) if since is not None else 0
    if count > limit:
        rows = _extremes(values.select("ts, value", where, span, "ORDER BY ts"), limit)
    else:
        rows = values.select("ts, value", where, span, f"ORDER BY ts DESC LIMIT {limit}")[::-1]
    found: dict[int, float] = {}
    for ts, value in rows:  # the first of a time counts, as for the service
        found.setdefault(ts, value)
    return {"ts": list(found), "value": list(found.values())}


def _extremes(rows: list[tuple[Any, ...]], limit: int) -> list[tuple[Any, ...]]:
    """The least and the largest value of each of `limit` / 2 parts."""
    values, kept = np.array([row[1] for row in rows]), set[int]()
    for part in np.array_split(np.arange(len(rows)), max(1, limit // 2)):
        kept |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    return [rows[at] for at in sorted(kept)]


def anomalies(state: State, track: Track, since: int | None, until: int | None) -> dict[str, Any]:
    """Values that did not fit what had been forecast for them, and how far not: above 1."""
    where, span = between(track, since, until)
    rows = state.store.forecasts.select("ts, anomaly", f"{where} AND anomaly > 1", span, "ORDER BY ts DESC LIMIT 2000")
    found = dict(rows[::-1])
    return {"ts": list(found), "score": list(found.values())}


def forecast_at(state: State, track: Track, ts: int | None) -> dict[str, Any] | None:
    """The newest forecast, or the newest that was made at `ts` or before."""
    where, span = between(track, None, ts)
    rows = state.store.forecasts.select(STORED, where, span, "ORDER BY ts DESC LIMIT 1")
    if not rows:
        return None
    made, start, step, model, coverage, source, partition, number, *blobs = rows[0]
    forecast, lower, upper = map(floats, blobs)
    label, sha256 = state.models.known[model]
    return {
        "ts": made,
        "start": start,
        "times": step_times(state, track, made, start, step, len(forecast or ())),
        "forecast": forecast,
        "lower": lower,
        "upper": upper,
        "model": label or None,
        "source": source,
        "coverage": coverage,
        "position": {"topic": state.topics.output, "partition": partition, "offset": number},
        "sha256": sha256 or None,
    }


def alerts(state: State, track: Track, since: int | None) -> list[dict[str, Any]]:
    """What was found in a series, the newest first: begin and end of a finding as one."""
    rows = state.store.alerts.select(
        "since, kind, target, phase, ts, value",
        "series = ? AND ts >= ?",
        (track.series, -(2**62) if since is None else since),
        f"ORDER BY ts DESC, phase DESC LIMIT {2 * ALERTS}",
    )
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for begun, kind, target, phase, _, value in reversed(rows):
        if target in ("", target_name(state, track)):
            alert, ended = decode_alert(value), phase == "end"
            names = ("ts", "since", "kind", "phase", "text", "size", "value", "usual", "outcome")
            fields = {name: getattr(alert, name) for name in names}
            found[begun, kind, target] = fields | {"until": alert.ts if ended else None}
    return sorted(found.values(), key=lambda each: -each["ts"])[:ALERTS]
