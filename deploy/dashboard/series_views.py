"""A series as the page shows it: its values, its forecasts, and the past's forecasts of k steps ahead."""

from array import array
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from deploy.dashboard.fleet import Track
from deploy.dashboard.parameters import BadRequest, NotFound, Query
from deploy.dashboard.state import State
from deploy.dashboard.times import step_times
from deploy.grading.totals import Row, Totals
from pipeline.formats.alerts import decode_alert

MOST_POINTS = 10_000
SWAPS = 50
ALERTS = 200
FORECAST = (
    "ts, start, step, model, anomaly, coverage, source, partition, number, forecast, lower, upper"  # of the store
)


def find_track(state: State, query: Query) -> Track:
    """The track that a request is about. Raises NotFound."""
    series, target = query.text("series"), query.text("target")
    if series is None:
        raise BadRequest("series: which one?")
    for track in state.fleet.of_series(series):
        if not target or target in (track.target, target_name(state, track)):
            return track
    raise NotFound(f"no series {series!r}" + (f" with a target {target!r}" if target else ""))


def target_name(state: State, track: Track) -> str:
    """What a track's target is called."""
    return track.target or state.values.name


def series_view(state: State, query: Query) -> dict[str, Any]:
    """All of a series but its stream: /api/series."""
    with state.lock:
        track = find_track(state, query)
        since, until, limit = query.time("from"), query.time("to"), query.number("limit", 2000, 1, MOST_POINTS)
        values = values_between(state, track, since, until, limit)
        first = values["ts"][0] if values["ts"] else since
        names = [target_name(state, each) for each in state.fleet.of_series(track.series)]
        name = target_name(state, track)
        totals = state.graded.of_series(track.series, name)
        kept = state.store.forecasts.select("min(ts), max(ts), count(*)", "track = ?", (track.number,))
        spans = [row for row in kept if row[2]]
        left_out = None
        if state.store.forecasts.dropped:
            left_out = "older forecasts are no longer kept here: the topic may still have them (tidecast explain)"
        return {
            "series": track.series,
            "target": name,
            "targets": names,
            "horizon": track.horizon or None,
            "step": track.step,
            "coverage": track.coverage,
            "model": track.model or None,
            "source": track.source or None,
            "values": values,
            "anomalies": anomalies(state, track, first, until),
            "forecast": newest_forecast(state, track),
            "alerts": alerts(state, track, since),
            "swaps": swaps(state, track),
            "scores": scores(totals),
            "history": {
                "from": min((row[0] for row in spans), default=None),
                "to": max((row[1] for row in spans), default=None),
                "forecasts": sum(row[2] for row in spans),
                "left_out": left_out,
            },
        }


def values_between(state: State, track: Track, since: int | None, until: int | None, limit: int) -> dict[str, Any]:
    """The newest `limit` values of a time, or of a longer one the least and the largest of each part of it."""
    where, span = _between(track, since, until)
    count = sum(row[0] for row in state.store.values.select("count(*)", where, span)) if since is not None else 0
    if count > limit:
        rows = state.store.values.select("ts, value", where, span, "ORDER BY ts")
        rows = _thinned(rows, limit)
    else:
        rows = state.store.values.select("ts, value", where, span, f"ORDER BY ts DESC LIMIT {limit}")[::-1]
    found: dict[int, float] = {}
    for ts, value in rows:
        found.setdefault(ts, value)
    return {"ts": list(found), "value": list(found.values())}


def _between(track: Track, since: int | None, until: int | None) -> tuple[str, tuple[int, ...]]:
    where, span = "track = ?", [track.number]
    for sign, bound in ((">=", since), ("<=", until)):
        if bound is not None:
            where += f" AND ts {sign} ?"
            span.append(bound)
    return where, tuple(span)


def _thinned(rows: list[tuple[Any, ...]], limit: int) -> list[tuple[Any, ...]]:
    parts = np.array_split(np.arange(len(rows)), max(1, limit // 2))
    kept = set[int]()
    for part in parts:
        if len(part):
            of = [rows[at][1] for at in part]
            kept |= {int(part[int(np.argmin(of))]), int(part[int(np.argmax(of))])}
    return [rows[at] for at in sorted(kept)]


def anomalies(state: State, track: Track, since: int | None, until: int | None) -> dict[str, Any]:
    """Values that were anomalies, and their scores."""
    where, span = _between(track, since, until)
    rows = state.store.forecasts.select("ts, anomaly", f"{where} AND anomaly > 1", span, "ORDER BY ts DESC LIMIT 2000")
    found = dict(rows[::-1])
    return {"ts": list(found), "score": list(found.values())}


def newest_forecast(state: State, track: Track) -> dict[str, Any] | None:
    """The newest forecast."""
    return forecast_at(state, track, None)


def forecast_at(state: State, track: Track, ts: int | None) -> dict[str, Any] | None:
    """The forecast of the newest origin, at `ts` or before."""
    where, span = _between(track, None, ts)
    rows = state.store.forecasts.select(FORECAST, where, span, "ORDER BY ts DESC LIMIT 1")
    return _forecast(state, track, rows[0]) if rows else None


def _forecast(state: State, track: Track, row: tuple[Any, ...]) -> dict[str, Any]:
    ts, start, step, model, _, coverage, source, partition, number, *blobs = row
    forecast, lower, upper = (_floats(blob) for blob in blobs)
    label, sha256 = state.models.labels[model]
    assert forecast is not None
    return {
        "ts": ts,
        "start": start,
        "times": step_times(state, track, ts, start, step, len(forecast)),
        "forecast": forecast,
        "lower": lower,
        "upper": upper,
        "model": label or None,
        "source": source,
        "coverage": coverage,
        "position": {"topic": state.topics.output, "partition": partition, "offset": number},
        "sha256": sha256 or None,
    }


def _floats(blob: bytes | None) -> list[float] | None:
    """Float32 as the shortest decimals that they are."""
    if blob is None:
        return None
    values = array("f")
    values.frombytes(blob)
    return [float(f"{value:.7g}") for value in values]


def alerts(state: State, track: Track, since: int | None) -> list[dict[str, Any]]:
    """A series' findings, begin and end in one."""
    rows = state.store.alerts.select(
        "since, kind, target, phase, ts, value",
        "series = ? AND ts >= ?",
        (track.series, since or -(2**62)),
        f"ORDER BY ts DESC LIMIT {2 * ALERTS}",
    )
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for begun, kind, target, phase, _, value in rows[::-1]:
        if target and target != target_name(state, track):
            continue
        alert = decode_alert(value)
        each = {"ts": alert.ts, "since": begun, "until": None, "kind": kind, "phase": phase, "text": alert.text}
        each |= {"size": alert.size, "value": alert.value, "usual": alert.usual, "outcome": alert.outcome}
        if phase == "end":
            each["until"] = alert.ts
        found[begun, kind, target] = each
    return sorted(found.values(), key=lambda each: -each["ts"])[:ALERTS]


def swaps(state: State, track: Track) -> list[dict[str, Any]]:
    """When another version began to forecast the series."""
    what = "min(ts), max(ts), model"
    rows = state.store.forecasts.select(
        what, "track = ? AND source != 'naive'", (track.number,), "GROUP BY model ORDER BY 1"
    )
    spans: dict[int, tuple[int, int]] = {}
    for first, last, model in rows:
        before = spans.get(model, (first, last))
        spans[model] = min(first, before[0]), max(last, before[1])
    ordered = sorted(spans, key=lambda model: spans[model])
    labels = [state.models.labels[model][0] for model in ordered]
    return [
        {"ts": spans[model][0], "from": labels[at], "to": labels[at + 1]}
        for at, model in enumerate(ordered[1:])
        if labels[at] != labels[at + 1]
    ][-SWAPS:]


def scores(totals: Totals) -> dict[str, Any]:
    """Scores in a series' own units: of all, by step, by model."""
    overall = totals.rows("series")
    parts = dict(totals.parts)
    by_step, by_model = list[Row](), list[Row]()
    for step in sorted({step for key in parts for step in key.steps}):
        by_step += [msgspec.structs.replace(row, step=step) for row in _part(totals, step=step)]
    for model in sorted(
        {key.model for key in parts}, key=lambda model: min(p.since for k, p in parts.items() if k.model == model)
    ):
        by_model += [msgspec.structs.replace(row, model=model, unscored=None) for row in _part(totals, model=model)]
    return {
        "overall": as_dict(overall[0]) if overall else None,
        "by_step": list(map(as_dict, by_step)),
        "by_model": list(map(as_dict, by_model)),
    }


def _part(totals: Totals, step: int | None = None, model: str | None = None) -> list[Row]:
    """The row of one step or version, in the series' units."""
    part = Totals(scale=totals.scale)
    part.unscored = {key: count for key, count in totals.unscored.items() if step in (None, key[2])}
    for key, each in totals.parts.items():
        if model not in (None, key.model):
            continue
        at = range(len(key.steps)) if step is None else [n for n, own in enumerate(key.steps) if own == step]
        if at:
            steps = tuple(key.steps[n] for n in at)
            part.add_sums(key._replace(steps=steps), each.sums[list(at)], each.since, each.until)
    return part.rows("series")


def as_dict(row: Row) -> dict[str, Any]:
    """A row with all of its fields."""
    return {name: getattr(row, name) for name in row.__struct_fields__}


def ahead(state: State, query: Query) -> dict[str, Any]:
    """What was forecast k steps ahead, each time: /api/ahead."""
    with state.lock:
        track = find_track(state, query)
        k = query.number("k", 1, 1, 100_000)
        limit = query.number("limit", 2000, 1, MOST_POINTS)
        since, until = query.time("from"), query.time("to")
        shift = k * (track.step or 0)
        where, span = _between(
            track,
            None if since is None else since - shift,
            None if until is None else until - shift + (track.step or 0),
        )
        at = f"substr({{}}, {4 * k - 3}, 4)"
        what = f"ts, start, step, model, {at.format('forecast')}, {at.format('lower')}, {at.format('upper')}"
        rows = state.store.forecasts.select(
            what, f"{where} AND length(forecast) >= {4 * k}", span, f"ORDER BY ts DESC LIMIT {limit}"
        )[::-1]
        rows = list({row[0]: row for row in rows}.values())
        labels = [state.models.labels[row[3]][0] for row in rows]
        times = [step_times(state, track, row[0], row[1], row[2], k)[-1] for row in rows]
        forecast, lower, upper = (_column([row[at] for row in rows]) for at in (4, 5, 6))
    has = any(each is not None for each in lower)
    return {
        "k": k,
        "ts": times,
        "made": [row[0] for row in rows],
        "forecast": forecast,
        "lower": lower if has else None,
        "upper": upper if has else None,
        "model": labels,
    }


def _column(blobs: list[bytes | None]) -> list[float | None]:
    whole: npt.NDArray[np.float32] = np.frombuffer(b"".join(blob or b"\0\0\xc0\x7f" for blob in blobs), "<f4")
    return [None if blob is None else float(f"{value:.7g}") for blob, value in zip(blobs, whole.tolist(), strict=True)]


def origin(state: State, query: Query) -> dict[str, Any]:
    """The forecast made at a time, and how to reproduce it: /api/origin."""
    with state.lock:
        track = find_track(state, query)
        found = forecast_at(state, track, query.time("ts"))
    if found is None:
        raise NotFound("no forecast from then or before is kept here")
    where = found["position"]
    return {**found, "explain": f"tidecast explain {where['topic']} {where['partition']} {where['offset']}"}


def target_view(state: State, query: Query) -> dict[str, Any]:
    """All that was forecast for one time, and what came: /api/target."""
    with state.lock:
        track = find_track(state, query)
        wanted = query.time("ts")
        if wanted is None:
            raise BadRequest("ts: for which time?")
        ts, actual = _nearest_value(state, track, wanted)
        reach = (track.horizon + 2) * max(track.step or 0, 1) * (2 if track.workdays else 1) if track.step else 2**45
        rows = state.store.forecasts.select(
            FORECAST, "track = ? AND ts < ? AND ts >= ?", (track.number, ts, ts - reach), "ORDER BY ts LIMIT 5000"
        )
        found = {}
        for row in rows:
            times = step_times(state, track, row[0], row[1], row[2], len(row[9]) // 4)
            distance = [abs(time - ts) for time in times]
            k = int(np.argmin(distance)) if distance else -1
            if k >= 0 and distance[k] <= (row[2] or track.step or 1) / 2:
                found[row[0]] = _answer(state, row, k, actual)
    return {"ts": ts, "actual": actual, "naive_known": False, "rows": sorted(found.values(), key=lambda row: row["k"])}


def _nearest_value(state: State, track: Track, wanted: int) -> tuple[int, float | None]:
    """The time of the step nearest to a time, and its value, if there is one."""
    values = state.store.values
    before = values.select("ts, value", "track = ? AND ts <= ?", (track.number, wanted), "ORDER BY ts DESC LIMIT 1")
    after = values.select("ts, value", "track = ? AND ts > ?", (track.number, wanted), "ORDER BY ts LIMIT 1")
    nearest = min((*before, *after), key=lambda row: abs(row[0] - wanted), default=None)
    step = track.step or (2**60)
    if nearest is not None and abs(nearest[0] - wanted) <= step / 2:
        return nearest[0], nearest[1]
    if track.ts is not None and track.step and wanted > track.ts:
        return track.ts + round((wanted - track.ts) / track.step) * track.step, None
    return wanted, None


def _answer(state: State, row: tuple[Any, ...], k: int, actual: float | None) -> dict[str, Any]:
    forecast, lower, upper = (
        None if blob is None else (_floats(blob[4 * k : 4 * k + 4]) or [None])[0] for blob in row[9:]
    )
    known = actual is not None and lower is not None and upper is not None
    assert forecast is not None
    return {
        "k": k + 1,
        "made": row[0],
        "forecast": forecast,
        "lower": lower,
        "upper": upper,
        "error": None if actual is None else forecast - actual,
        "inside": lower <= actual <= upper if known else None,  # type: ignore[operator]
        "model": state.models.labels[row[3]][0],
    }
