"""Counts of the last minutes."""

import time
from collections import Counter

SPAN_S, WIDTH_S = 300, 5
"""How far counts reach back, and over how many seconds each is."""


class Recent:
    """Counts by name, in parts of WIDTH_S."""

    def __init__(self) -> None:
        self._parts: dict[int, Counter[str]] = {}

    def add(self, name: str, count: int, at: float | None = None) -> None:
        """Count something that happened at a time, epoch seconds; None: now. What is too old is not counted."""
        now = time.time()
        at = now if at is None else at
        if not now - SPAN_S <= at <= now:
            return
        if (part := int(at // WIDTH_S)) not in self._parts:
            for old in [each for each in self._parts if each < (now - SPAN_S) // WIDTH_S]:
                del self._parts[old]
            self._parts[part] = Counter()
        self._parts[part][name] += count

    @property
    def counts(self) -> Counter[str]:
        """Of the last SPAN_S, by name."""
        first, total = (time.time() - SPAN_S) // WIDTH_S, Counter[str]()
        for part, counts in self._parts.items():
            if part >= first:
                total.update(counts)
        return total

    def without(self, name: str, other: str) -> tuple[float, int] | None:
        """Since when there is no `other` though there is `name`, epoch seconds, and how many of that; None if not so.

        The two are not noticed at the very same time: what comes within a part after the other does not count.
        """
        newest = max((part for part, counts in self._parts.items() if counts[other]), default=-2)
        first = max(newest + 2, int((time.time() - SPAN_S) // WIDTH_S))
        after = {part: counts[name] for part, counts in self._parts.items() if counts[name] and part >= first}
        return (min(after) * WIDTH_S, sum(after.values())) if after else None
