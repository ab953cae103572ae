"""The payloads of the page's API but those of one series."""

import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from deploy.dashboard.topics.fleet import row
from deploy.dashboard.topics.reader import Reader
from deploy.dashboard.topics.state import State
from deploy.dashboard.views import past
from deploy.dashboard.views.parameters import Query
from deploy.dashboard.views.registry import RegistryView
from deploy.dashboard.views.scores import as_dict
from deploy.dashboard.views.series import points, series_view, target_name
from deploy.dashboard.views.shadow import shadow_rows
from model.online.scores import SUMS
from pipeline.formats.dead_letters import Content

VERSION = version("tidecast")
SORTS = ("skill", "width", "alert", "name", "newest", "coverage")
KINDS = ("input", "output", "scores", "alerts", "shadow", "dead_letters", "state")
"""Of topics, as they are listed."""
POINTS = 300
"""Most points of a line over time."""
LABELS = 50
SCORED_S = 10.0
"""Between two computations of scores that take long."""


class Views:
    """What the page is shown, by name."""

    def __init__(self, state: State, reader: Reader, registry: RegistryView, label: str, bootstrap: str) -> None:
        """`label` is what the log is called, `bootstrap` its address as commands take it."""
        self._state, self._reader, self._registry, self._label = state, reader, registry, label
        self._shadowed: tuple[float, list[dict[str, Any]]] = (float("-inf"), [])
        self._scored: tuple[int, float, list[dict[str, Any]]] | None = None
        self.all: dict[str, Callable[[Query], dict[str, Any]]] = {
            "overview": self.overview,
            "fleet": self.fleet,
            "series": lambda query: series_view(state, query),
            "ahead": lambda query: past.ahead(state, query),
            "origin": lambda query: past.origin(state, query, bootstrap),
            "target": lambda query: past.target(state, query),
            "models": self.models,
            "service": self.service,
            "dead-letters": self.dead_letters,
            "texts": self.texts,
        }

    def overview(self, _: Query | None = None) -> dict[str, Any]:
        """/api/overview."""
        state, topics = self._state, self._state.topics
        there = {each.kind: each.name for each in self._reader.topics if each.id}
        with state.lock:
            return {
                "version": VERSION,
                "log": self._label,
                "task": "labels" if state.is_text else "forecasts",
                "topic": topics.input,
                "output": topics.output,
                "group": topics.group,
                "topics": {kind: there.get(kind) for kind in KINDS},
                "reading": self._reader.progress,
                "series": len(state.fleet.targets),
                "models": state.models.labels[-LABELS:],
                "registry": self._registry.present,
                "log_error": self._reader.error,
                "series_left_out": state.fleet.left_out,
            }

    def status(self) -> dict[str, Any]:
        """Whether the log can be read."""
        return {"log_error": self._reader.error}

    def fleet(self, query: Query) -> dict[str, Any]:
        """/api/fleet."""
        state = self._state
        q, sort = query.text("q") or "", query.one_of("sort", SORTS)
        desc = query.one_of("desc", ("0", "1")) == "1"
        offset, limit = query.number("offset", 0, 0, 10**7), query.number("limit", 50, 1, 500)
        since = query.time("since")
        with state.lock:
            sums = None if since is None else state.graded.since(since)
            found = state.fleet.ordered(q, sort, desc, since, sums)
            rows = [
                row(
                    state.fleet,
                    track,
                    target_name(state, track),
                    track.sums if sums is None else sums.get(track.number),
                )
                for track in found[offset : offset + limit]
            ]
            return {"total": len(state.fleet.tracks), "matching": len(found), "rows": rows}

    def points(self, query: Query, cursor: int | None) -> tuple[dict[str, Any], int | None]:
        """What is new of a series, and up to which time."""
        return points(self._state, query, cursor)

    def models(self, _: Query | None = None) -> dict[str, Any]:
        """/api/models."""
        state = self._state
        with state.lock:
            name = next((label.rpartition("/")[0] for label in reversed(state.models.labels)), None)
            live, swaps, shadow = self._live(), state.models.swaps, self._shadow()
            over_time = self._over_time()
        self._registry.refresh(name)
        return {
            "registry": self._registry.facts,
            "versions": [dict(each) for each in self._registry.versions],
            "live": live,
            "shadow": shadow,
            "swaps": swaps,
            "skill_over_time": over_time,
            "refused": list(self._registry.refused),
        }

    def _live(self) -> list[dict[str, Any]]:
        """Scores by model, computed again once they have changed, at most every ten seconds."""
        graded, now = self._state.graded, time.monotonic()
        kept = self._scored
        if kept is None or (
            kept[0] != graded.version and now - kept[1] > min(SCORED_S, 0.001 * len(graded.totals.parts))
        ):
            self._scored = kept = graded.version, now, list(map(as_dict, graded.totals.rows("model")))
        return kept[2]

    def _shadow(self) -> list[dict[str, Any]]:
        """The shadow's scores, computed again at most every ten seconds."""
        if time.monotonic() - self._shadowed[0] > SCORED_S:
            self._shadowed = time.monotonic(), shadow_rows(self._state)
        return self._shadowed[1]

    def _over_time(self) -> list[dict[str, Any]]:
        graded = self._state.graded
        starts = sorted({start for start, _ in graded.over_time})
        width = max(1, -(-len(starts) // POINTS))
        bucket_of = {start: starts[at - at % width] for at, start in enumerate(starts)}
        sums: dict[str, dict[int, Any]] = {}
        for (start, model), each in graded.over_time.items():
            of = sums.setdefault(model, {})
            of[bucket_of[start]] = of.get(bucket_of[start], np.zeros(len(SUMS))) + each
        lines = []
        for model, of in sums.items():
            times = sorted(at for at in of if of[at][0] > 0)
            named = [dict(zip(SUMS, of[at].tolist(), strict=True)) for at in times]
            lines.append(
                {
                    "model": model,
                    "ts": times,
                    "skill": [
                        1 - each["absolute_error"] / each["naive_absolute_error"]
                        if each["naive_absolute_error"]
                        else None
                        for each in named
                    ],
                    "coverage": [each["inside"] / each["intervals"] if each["intervals"] else None for each in named],
                    "count": [round(each["count"]) for each in named],
                }
            )
        return sorted(lines, key=lambda line: line["ts"][:1])

    def service(self, _: Query | None = None) -> dict[str, Any]:
        """/api/service."""
        state, service = self._state, self._state.service
        with state.lock:
            lag = service.lag
            members = service.members
            return {
                "lag": {"total": None if lag is None else sum(lag.values()), "by_partition": lag or {}},
                "throughput": service.throughput,
                "history": {name: list(values) for name, values in service.history.items()},
                "latency": service.latency,
                "members": None if members is None else [{"name": each.name, "host": each.host} for each in members],
                "checkpoints": self._checkpoints(),
                "dead_letters": {"total": state.reasons.total(), "by_reason": dict(state.reasons.most_common())},
                "stuck": service.stuck,
                "partitions": len(next((each.bounds for each in self._reader.topics if each.kind == "input"), {})),
                "topics": [
                    {
                        "name": each.name,
                        "kind": each.kind,
                        "records": sum(end - start for start, end in each.bounds.values()) if each.id else None,
                        "exists": bool(each.id),
                        "refused": each.refused or None,
                    }
                    for each in sorted(self._reader.topics, key=lambda each: KINDS.index(each.kind))
                ],
            }

    def _checkpoints(self) -> list[dict[str, Any]]:
        now = time.time()
        partitions = {track.series: track.partition for track in self._state.fleet.tracks.values()}
        series = Counter(partitions.values())
        return [
            {
                "partition": number,
                "ts": ts if ts >= 0 else None,
                "offset": position,
                "age_s": round(now - ts / 1000) if ts >= 0 else None,
                "series": series[number],
            }
            for number, (ts, position) in sorted(self._state.checkpoints.items())
        ]

    def dead_letters(self, query: Query) -> dict[str, Any]:
        """/api/dead-letters."""
        reason, limit = query.text("reason"), query.number("limit", 20, 1, 200)
        with self._state.lock:
            found = [each for kept in self._state.letters.values() for each in kept if reason in (None, each.reason)]
        names = ("reason", "detail", "topic", "partition", "offset", "letter")
        rows = [
            {"ts": letter.timestamp, "key": _text(letter.key), "value": _text(letter.value)}
            | {name: getattr(letter, name) for name in names}
            for letter in sorted(found, key=lambda letter: letter.timestamp)[-limit:][::-1]
        ]
        return {"rows": rows}

    def texts(self, query: Query) -> dict[str, Any]:
        """/api/texts."""
        limit = query.number("limit", 50, 1, 500)
        with self._state.lock:
            return self._state.texts.view(query.text("label"), limit)


def _text(content: Content | None) -> str | None:
    """Bytes as text; those that are not UTF-8 escaped."""
    if content is None or isinstance(content, str):
        return content if content is None else content[:4096]
    return content.base64[:4096].decode(errors="backslashreplace")
