"""Two faults that make no error: a call that never returns, and polls that never bring what is there."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tidecast.errors import LogUnavailable

logger = logging.getLogger(__name__)

TICK_S = 1.0


class Watchdog:
    """Ends the process, with exit code 75, when one watched call takes longer than `limit_s`.

    It counts its own ticks, so time in which the whole process was stopped does not count.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._call = ""
        self._ticks = 0
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def __call__(self, call: str) -> Iterator[None]:
        """Watch what is done within; `call` names it."""
        self._ticks, self._call = 0, call
        try:
            yield
        finally:
            self._call = ""

    def _watch(self) -> None:
        while not self._closed.wait(TICK_S):
            self._ticks += 1
            if self._call and self._ticks * TICK_S > self._limit_s:
                logger.error(f"{self._call} has not returned in {self._limit_s:g} s; ending, to start again")
                os._exit(os.EX_TEMPFAIL)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()


class StallDetector:
    """Notices partitions whose lag stays while their position does not move."""

    def __init__(self, looks: int) -> None:
        """`looks` is how many looks in a row may find a partition standing still."""
        self._looks = looks
        self._positions: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    def look(self, positions: Mapping[int, int], lag: Mapping[int, int]) -> None:
        """Compare the next offsets to read with those of the last look. Raises LogUnavailable."""
        still = {p for p, lag in lag.items() if lag > 0 and self._positions.get(p) == positions.get(p)}
        self._seen = {partition: self._seen.get(partition, 0) + 1 for partition in still}
        self._positions = dict(positions)
        for partition, times in self._seen.items():
            if times >= self._looks:
                where = f"partition {partition} stands still at {positions[partition]}"
                raise LogUnavailable(f"{where}, {lag[partition]:,} records before its end")
