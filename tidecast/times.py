"""Times as people read them."""

from datetime import UTC, datetime
from typing import Literal


def format_time(ts: int, to: Literal["minutes", "seconds"] = "minutes") -> str:
    """Epoch milliseconds in UTC, such as 2026-01-31 12:00, or as they stand where a calendar ends."""
    try:
        time = datetime.fromtimestamp(ts / 1000, UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return str(ts)
    return time.isoformat(" ", to)
