"""Dead letters as the page shows them, and what can be done about each."""

from shlex import quote
from typing import Any

from deploy.dashboard.topics.state import State
from deploy.dashboard.views.parameters import Query
from pipeline.formats.dead_letters import Content, advice

MOST_TEXT = 4096
"""Most characters of a record's content."""


def letters_summary(state: State) -> dict[str, Any]:
    """How many there are, by reason; as a part of /api/service."""
    letters, recent = state.letters.most_frequent, state.service.refused.counts
    return {
        "total": state.letters.total,
        "by_reason": {reason: each.count for reason, each in letters},
        "reasons": [
            {
                "reason": reason,
                "count": each.count,
                "first_ts": each.first,
                "newest_ts": each.newest,
                "recent": recent[reason],
            }
            for reason, each in letters
        ],
    }


def letters_view(state: State, query: Query) -> dict[str, Any]:
    """/api/dead-letters: the newest of each kind, a row each."""
    reason, limit = query.text("reason"), query.number("limit", 20, 1, 200)
    with state.lock:
        found = list(state.letters.newest(reason))[-limit:][::-1]
    names = ("reason", "detail", "topic", "partition", "offset", "letter")
    topic = state.topics.named.get("dead_letters")
    rows = [
        {
            "ts": letter.timestamp,
            "key": _text(letter.key),
            "value": _text(letter.value),
            "count": count,
            "advice": advice(letter.reason),
            "command": f"tidecast dead-letters {topic} --reason {quote(letter.reason)} --export repaired.jsonl",
            **{name: getattr(letter, name) for name in names},
        }
        for letter, count in found
    ]
    return {"rows": rows}


def _text(content: Content | None) -> str | None:
    """Bytes as text; those that are not UTF-8 escaped."""
    if content is None or isinstance(content, str):
        return content if content is None else content[:MOST_TEXT]
    return content.base64[:MOST_TEXT].decode(errors="backslashreplace")
