"""Failures that raise no error: a call that never returns, and a partition whose consumer position never moves."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from deploy.logs import finish_logging
from tidecast.errors import LogUnavailable

logger = logging.getLogger(__name__)

TICK_S = 1.0


class Watchdog:
    """Ends the process with exit code 75 if a watched call takes longer than `timeout_s`.

    Between two such calls it does not: what the service computes may take long. But then it is not alive.

    It counts its own ticks rather than wall-clock time, so time during which the whole process was suspended does not
    count.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._call = ""
        self._ticks = 0
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watch(self, call: str) -> Iterator[None]:
        """Watch the call in the body of the with statement; `call` is its name in the log."""
        around, self._call, self._ticks = self._call, call, 0
        try:
            yield
        finally:
            self._call, self._ticks = around, 0

    def progress(self) -> None:
        """A sign of life, in work that takes long between two watched calls."""
        self._ticks = 0

    @property
    def alive(self) -> bool:
        """Whether the service has called something, or made progress, within `timeout_s`."""
        return self._ticks * TICK_S <= self._timeout_s

    def _run(self) -> None:
        while not self._closed.wait(TICK_S):
            self._ticks += 1
            if self._call and self._ticks * TICK_S > self._timeout_s:
                logger.error(f"{self._call} has not returned within {self._timeout_s:g} s; exiting for a restart")
                finish_logging()
                os._exit(os.EX_TEMPFAIL)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()


class StallDetector:
    """Detects partitions that have a lag while their position does not move."""

    def __init__(self, max_stalled: int) -> None:
        """`max_stalled` is how many updates in a row may find a partition stalled before it is an error."""
        self._max_stalled = max_stalled
        self._positions: dict[int, int] = {}
        self._stalled: dict[int, int] = {}

    def update(self, positions: Mapping[int, int], lag: Mapping[int, int]) -> None:
        """Compare the partitions' positions with those of the last update. Raises LogUnavailable for a stalled one."""
        stalled = {p for p, records in lag.items() if records > 0 and self._positions.get(p) == positions.get(p)}
        self._stalled = {partition: self._stalled.get(partition, 0) + 1 for partition in stalled}
        self._positions = dict(positions)
        for partition, count in self._stalled.items():
            if count >= self._max_stalled:
                position = f"partition {partition} is stalled at offset {positions[partition]}"
                raise LogUnavailable(f"{position} with a lag of {lag[partition]:,} records")
