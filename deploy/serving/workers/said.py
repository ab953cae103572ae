"""What a supervisor and its workers tell each other."""

from typing import Any, Literal

import msgspec

Asked = Literal["hanging", "missing", "metrics", "stop"]
"""What a report is asked for; or to stop, to which there is no answer."""


class Answer(msgspec.Struct, tag=True):
    """What a worker's report says."""

    asked: Asked
    text: str


class Ended(msgspec.Struct, tag=True):
    """What a worker did, as it ended of its own accord."""

    output: str
    summary: dict[str, Any]
    latency_ms: list[int]
    """Counts of the histogram's buckets."""
    intervals: int
    """How many values the summary's coverage is of."""


Said = Answer | Ended
