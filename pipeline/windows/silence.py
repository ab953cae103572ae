"""Which series have fallen silent: no step for far longer than was ever usual for them, by their partition's time.

What is usual is learnt from a series' own steps: how far the partition's time had come since the step before.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from pipeline.windows.batch import Section, Sections, Silence
from pipeline.windows.expiry import Deadlines

LEARNED = 20
"""Steps of a series from which it is learnt what is usual."""
FACTOR = 3
"""A series is silent after so many times its longest usual wait."""
STATE = struct.Struct("<qqq")
VERSION = 1
SILENCE = "silence"
"""The section of a series with what is usual for it."""


class Watched(Protocol):
    """What is kept of a series."""

    ts: int
    """The time of its last step."""
    steps: int
    """How many steps it had, up to LEARNED."""
    longest: int
    """The longest usual wait, milliseconds."""
    silent: bool


class Silences(Deadlines):
    """The silences of one partition's series."""

    def __init__(self, report: Callable[[Silence], object]) -> None:
        """`report` gets each silence that is noticed, and its end."""
        super().__init__()
        self._report = report

    def step(self, series: Watched, name: str, ts: int, stream_time: int, offset: int) -> None:
        """Note a step of a series, whose own `ts` is still that of the step before.

        Nothing is noted of a step after no longer a wait than usual, from the first LEARNED on.
        """
        wait = stream_time - series.ts
        if series.steps < LEARNED:
            self._learn(series, name, wait, stream_time)
        elif wait > series.longest:
            self._wait(series, name, wait, ts, stream_time, offset)

    def _learn(self, series: Watched, name: str, wait: int, stream_time: int) -> None:
        if series.steps:
            series.longest = max(series.longest, wait)
        series.steps += 1
        if series.steps == LEARNED:
            self.schedule(_due(series, stream_time), name)

    def _wait(self, series: Watched, name: str, wait: int, ts: int, stream_time: int, offset: int) -> None:
        """Learn a longer wait; one that is far longer is a silence that has ended."""
        usual = series.longest
        if wait <= FACTOR * usual:
            series.longest = wait
            return
        if not series.silent:
            self._report(Silence(name, series.ts, stream_time, usual, False, offset))
        self._report(Silence(name, series.ts, ts, usual, True, offset))
        series.silent, series.longest = False, 2 * usual
        self.schedule(_due(series, stream_time), name)

    def fallen(self, series: Mapping[str, Watched], stream_time: int) -> Iterator[str]:
        """The series that have fallen silent by now. Each is to be noticed before the next is taken."""
        return (name for _, name in self._passed(series, stream_time))

    def waiting(self, series: Mapping[str, Watched], stream_time: int) -> list[tuple[int, str]]:
        """The series that fall silent by that time unless they have a step before, and when."""
        found = list(self._passed(series, stream_time))
        for due, name in found:
            self.schedule(due, name)
        return found

    def _passed(self, series: Mapping[str, Watched], stream_time: int) -> Iterator[tuple[int, str]]:
        def due(name: str) -> int | None:
            each = series.get(name)
            return None if each is None or each.silent or each.steps < LEARNED else _due(each, each.ts)

        return self.passed(stream_time, due)

    def notice(self, series: Watched, name: str, stream_time: int, offset: int) -> None:
        """Report a series that has fallen silent."""
        series.silent = True
        self._report(Silence(name, series.ts, stream_time, series.longest, False, offset))

    def section(self, series: Watched) -> Sections:
        """A series' state."""
        return {SILENCE: Section(VERSION, STATE.pack(series.steps, series.longest, series.silent))}

    def restore(self, series: Watched, name: str, sections: Sections) -> Sections:
        """Set a series' state from its sections; the others."""
        section = sections.get(SILENCE)
        if section is not None and section.version == VERSION:
            series.steps, series.longest, silent = STATE.unpack(section.data)
            series.silent = bool(silent)
        if series.steps == LEARNED and not series.silent:
            self.schedule(_due(series, series.ts), name)
        return {key: each for key, each in sections.items() if key != SILENCE}


def _due(series: Watched, last: int) -> int:
    """When a series is silent whose last step was noted then."""
    return last + FACTOR * series.longest + 1
