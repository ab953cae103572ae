"""Dead letters by reason: how many, since when, and the newest of each kind."""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.formats.dead_letters import DeadLetter, one_line

KINDS = 200
"""Kinds of details that are kept of each reason."""
MOST_REASONS, LONGEST = 100, 40
"""Most reasons, and most characters of one: others than a service may write there."""
OTHERS = "(others)"
NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class Reason:
    """Those with one reason. Times are epoch milliseconds."""

    first: int
    newest: int
    count: int = 0
    kinds: OrderedDict[str, tuple[DeadLetter, int]] = field(default_factory=OrderedDict)
    """The newest dead letter with a detail, and how many there were; details that differ in numbers only are one."""

    def add(self, letter: DeadLetter, *, newest: bool) -> None:
        """Add one: after all others, or (not `newest`) before them."""
        ts, kind = letter.timestamp, NUMBER.sub("0", letter.detail)
        self.count += 1
        self.first, self.newest = min(self.first, ts), max(self.newest, ts)
        before, count = self.kinds.get(kind, (letter, 0))
        if newest:
            self.kinds[kind] = letter, count + 1
            self.kinds.move_to_end(kind)
            if len(self.kinds) > KINDS:
                self.kinds.popitem(last=False)
        elif count or len(self.kinds) < KINDS:
            self.kinds[kind] = before, count + 1
            if not count:
                self.kinds.move_to_end(kind, last=False)


class Letters:
    """All of them."""

    def __init__(self) -> None:
        self.reasons: dict[str, Reason] = {}

    def add(self, letter: DeadLetter, *, newest: bool) -> str:
        """Add one; the reason that it is counted under."""
        name = one_line(letter.reason)[:LONGEST]
        name = name if name in self.reasons or len(self.reasons) < MOST_REASONS else OTHERS
        ts = letter.timestamp
        self.reasons.setdefault(name, Reason(ts, ts)).add(letter, newest=newest)
        return name

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(each.count for each in self.reasons.values())

    @property
    def most_frequent(self) -> list[tuple[str, Reason]]:
        """By reason."""
        return sorted(self.reasons.items(), key=lambda item: (-item[1].count, item[0]))

    def newest(self, reason: str | None) -> Iterator[tuple[DeadLetter, int]]:
        """The newest of each kind, those of one reason if it is given, and how many there were; the oldest first."""
        found = [kind for name, each in self.reasons.items() if reason in (None, name) for kind in each.kinds.values()]
        return iter(sorted(found, key=lambda kind: kind[0].timestamp))
