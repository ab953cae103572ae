"""Records as a log gives them, without a log."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Given:
    """A record, with defaults for what a test is not about."""

    value: bytes | None
    key: bytes | None = None
    timestamp: int = 1_700_000_000_000
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = "input"
    partition: int = 0
    offset: int = 0
