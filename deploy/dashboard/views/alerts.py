"""The findings of all series that are open, as the page shows them."""

from typing import Any

from deploy.dashboard.topics.state import State
from deploy.dashboard.views.parameters import Query


def alerts_view(state: State, query: Query) -> dict[str, Any]:
    """Which findings have begun and not ended, the newest first: /api/alerts?open=1."""
    query.one_of("open", ("1",))
    limit = query.number("limit", 100, 1, 1000)
    with state.lock:
        found = state.open_alerts.newest_first
    names = ("series", "target", "kind", "since", "ts", "text", "size", "value", "usual")
    return {"total": len(found), "rows": [{name: getattr(each, name) for name in names} for each in found[:limit]]}
