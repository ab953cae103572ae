"""Which series have fallen silent: no step for far longer than was ever usual for them, by their partition's time.

What is usual is learnt from a series' own steps: how far the partition's time had come since the step before.
"""

import struct
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Protocol

from pipeline.windows.batch import Section, Sections, Silence
from pipeline.windows.reorder import BEFORE_ALL

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


class Silences:
    """The silences of one partition's series."""

    def __init__(self, report: Callable[[Silence], object]) -> None:
        """`report` gets each silence that is noticed, and its end."""
        self._report = report
        self._due: list[tuple[int, str]] = []

    @property
    def next_due(self) -> int:
        """The stream time at which the next series may be silent."""
        return self._due[0][0] if self._due else -BEFORE_ALL

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
            self._schedule(series, name, stream_time)

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
        self._schedule(series, name, stream_time)

    def _schedule(self, series: Watched, name: str, last: int) -> None:
        heappush(self._due, (last + FACTOR * series.longest + 1, name))

    def notice(self, series: Mapping[str, Watched], stream_time: int, offset: int) -> list[str]:
        """Report the series that have fallen silent by now; their names."""
        silent = []
        while self._due and self._due[0][0] <= stream_time:
            due, name = heappop(self._due)
            each = series.get(name)
            if each is None or each.silent or each.steps < LEARNED:
                continue
            if each.ts + FACTOR * each.longest >= due:  # it had steps since; in the order of their times
                self._schedule(each, name, each.ts)
                continue
            each.silent = True
            self._report(Silence(name, each.ts, stream_time, each.longest, False, offset))
            silent.append(name)
        return silent

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
            self._schedule(series, name, series.ts)
        return {key: each for key, each in sections.items() if key != SILENCE}
