"""The payloads of the page's API but those of one series."""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from deploy.dashboard.topics.fleet import row
from deploy.dashboard.topics.reader import Reader
from deploy.dashboard.topics.state import State
from deploy.dashboard.views import past
from deploy.dashboard.views.letters import letters_view
from deploy.dashboard.views.models import ModelsView
from deploy.dashboard.views.parameters import Query
from deploy.dashboard.views.problems import problems
from deploy.dashboard.views.registry import RegistryView
from deploy.dashboard.views.series import points, series_view, target_name
from deploy.dashboard.views.service import KINDS, service_view

VERSION = version("tidecast")
SORTS = ("skill", "width", "alert", "name", "newest", "coverage")
LABELS = 50
OFFSET_S = 600.0
"""How far event times may be off the clock without a word."""


class Views:
    """What the page is shown, by name."""

    def __init__(self, state: State, reader: Reader, registry: RegistryView, label: str, bootstrap: str) -> None:
        """`label` is what the log is called, `bootstrap` its address as commands take it."""
        self._state, self._reader, self._registry, self._label = state, reader, registry, label
        registry.refresh(None)
        self.all: dict[str, Callable[[Query], dict[str, Any]]] = {
            "overview": self.overview,
            "fleet": self.fleet,
            "series": lambda query: series_view(state, query),
            "ahead": lambda query: past.ahead(state, query),
            "origin": lambda query: past.origin(state, query, bootstrap),
            "target": lambda query: past.target(state, query),
            "models": ModelsView(state, registry).view,
            "service": lambda _: service_view(state, reader),
            "alerts": self.alerts,
            "dead-letters": lambda query: letters_view(state, query),
            "texts": self.texts,
        }

    def overview(self, _: Query | None = None) -> dict[str, Any]:
        """/api/overview."""
        state, topics = self._state, self._state.topics
        self._registry.refresh(state.models.name)
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
                "problem": self._problem(),
                "open_alerts": len(state.open_alerts),
                "event_time_offset_s": _offset(state.newest_event),
                "series_left_out": state.fleet.left_out,
            }

    def _problem(self) -> dict[str, Any] | None:
        """The worst problem, and the view that shows more."""
        worst = next(iter(problems(self._state, self._reader)), None)
        return None if worst is None else {"sentence": worst.sentence, "view": "service"}

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

    def alerts(self, query: Query) -> dict[str, Any]:
        """/api/alerts?open=1: which findings have begun and not ended, the newest first."""
        query.one_of("open", ("1",))
        limit = query.number("limit", 100, 1, 1000)
        with self._state.lock:
            found = self._state.open_alerts.newest_first
        names = ("series", "target", "kind", "since", "ts", "text", "size", "value", "usual")
        return {"total": len(found), "rows": [{name: getattr(each, name) for name in names} for each in found[:limit]]}

    def texts(self, query: Query) -> dict[str, Any]:
        """/api/texts."""
        limit = query.number("limit", 50, 1, 500)
        with self._state.lock:
            return self._state.texts.view(query.text("label"), limit)


def _offset(newest: int | None) -> int | None:
    """How far the newest event is ahead of the clock (behind it: below 0), in s; None if that is not known, or little.

    In whole minutes, so that the page does not change with every record.
    """
    offset = 0.0 if newest is None else newest / 1000 - time.time()
    return None if abs(offset) < OFFSET_S else 60 * round(offset / 60)
