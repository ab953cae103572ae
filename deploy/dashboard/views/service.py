"""How the service is doing, as the page shows it."""

import time
from collections import Counter
from typing import Any

from deploy.dashboard.topics.reader import Reader
from deploy.dashboard.topics.state import State
from deploy.dashboard.views.letters import letters_summary
from deploy.dashboard.views.problems import problems

KINDS = ("input", "output", "scores", "alerts", "shadow", "dead_letters", "state")
"""Of topics, as they are listed."""


def service_view(state: State, reader: Reader) -> dict[str, Any]:
    """/api/service."""
    service = state.service
    with state.lock:
        lag, members, wrong = service.lag, service.members, problems(state, reader)
        return {
            "problems": [each.as_dict() for each in wrong],
            "stuck": wrong[0].sentence if wrong else None,
            "open_alerts": len(state.open_alerts),
            "lag": {"total": None if lag is None else sum(lag.values()), "by_partition": lag or {}},
            "throughput": service.throughput,
            "history": {name: list(values) for name, values in service.history.items()},
            "latency": service.latency,
            "members": None if members is None else [{"name": each.name, "host": each.host} for each in members],
            "checkpoints": _checkpoints(state),
            "dead_letters": letters_summary(state),
            "partitions": len(reader.followed("input").bounds),
            "topics": _topics(reader),
        }


def _topics(reader: Reader) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "kind": each.kind,
            "records": sum(end - start for start, end in each.bounds.values()) if each.id else None,
            "exists": bool(each.id),
            "refused": each.refused or None,
        }
        for each in sorted(reader.topics, key=lambda each: KINDS.index(each.kind))
    ]


def _checkpoints(state: State) -> list[dict[str, Any]]:
    now = time.time()
    partitions = {track.series: track.partition for track in state.fleet.tracks.values()}
    series = Counter(partitions.values())
    return [
        {
            "partition": number,
            "ts": ts if ts >= 0 else None,
            "offset": position,
            "age_s": round(now - ts / 1000) if ts >= 0 else None,
            "series": series[number],
        }
        for number, (ts, position) in sorted(state.checkpoints.items())
    ]
