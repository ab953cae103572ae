"""How far an event's time may be ahead: of its record's, and of the clock."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.formats.dead_letters import InvalidEvent

MAX_AHEAD = 300_000
"""Milliseconds that an event may be ahead of its record's timestamp, or of the clock if the record has none."""
MAX_CLOCK_ERROR = 7 * 86_400_000
"""Milliseconds that any time may be ahead of the clock."""
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Clock:
    """The latest time that an event may have, whatever its record's is, as of the last look at the clock."""

    latest: int = 0

    def look(self) -> int:
        """What time it is, epoch milliseconds."""
        now = time.time_ns() // 1_000_000
        self.latest = now + MAX_CLOCK_ERROR
        return now

    def check(self, ts: int, recorded: int) -> None:
        """Raises InvalidEvent for a time ahead of its record's, or of the clock where that has none or a wrong one."""
        if recorded >= 0 and ts > recorded + MAX_AHEAD:
            raise InvalidEvent("bad_time", f"{ts} lies more than 5 minutes ahead of its record's time {recorded}")
        if recorded >= 0 and ts <= self.latest:
            return
        now = self.look()
        if recorded < 0 and ts > now + MAX_AHEAD:
            raise InvalidEvent(
                "bad_time", f"{ts} lies more than 5 minutes ahead of the clock, and its record has no time"
            )
        if ts > self.latest:
            raise InvalidEvent(
                "bad_time", f"{ts} lies more than a week ahead of the clock, as its record's time {recorded}"
            )
