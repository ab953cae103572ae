"""Where a group stands, asked of the broker by a thread of its own: known while the service itself does not get on."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from deploy.settings.files import another_connection
from deploy.settings.serve import ServeConfig
from pipeline.log import EventLog
from tidecast.errors import TidecastError

logger = logging.getLogger(__name__)

EVERY_S = 5.0
KNOWN_S = 3 * EVERY_S
"""How long an answer is taken for the present state."""
CLOSED_WITHIN_S = 2.0
ASKED_WITHIN_S = 5.0
"""How long the broker may take to answer."""


@dataclass(slots=True)
class GroupOffsets:
    """What the broker last said of a group and its topic, by partition."""

    ends: dict[int, int] = field(default_factory=dict)
    """Gauge: the offset that the next record of the topic will have."""
    committed: dict[int, int] = field(default_factory=dict)
    """Gauge: the offset of the next record that the group has not done."""
    errors: int = 0
    """Counter: times that the broker did not answer."""
    asked: bool = False
    """Whether anybody asks."""
    answered: float | None = None
    """When the last answer came, on the monotonic clock."""

    @property
    def known(self) -> bool:
        """Whether this is the present state, and not a past one."""
        return self.answered is not None and time.monotonic() - self.answered <= KNOWN_S

    @property
    def lag(self) -> dict[int, int]:
        """By partition: offsets that the group has not done; of all partitions, whoever has them."""
        return {number: max(0, self.ends.get(number, at) - at) for number, at in self.committed.items()}


class OffsetWatch:
    """Asks every EVERY_S, by a connection of its own."""

    def __init__(self, connect: Callable[[], EventLog], group: str, topic: str, offsets: GroupOffsets) -> None:
        """Begin; `offsets` is kept up to date."""
        self._connect, self._group, self._topic = connect, group, topic
        self._offsets, self._closing = offsets, threading.Event()
        self._failing = False
        self._log: EventLog | None = None
        offsets.asked = True
        self._thread = threading.Thread(target=self._run, name="group-offsets", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._closing.set()
        self._thread.join(CLOSED_WITHIN_S)

    def _run(self) -> None:
        while True:
            try:
                self._ask()
            except Exception as error:  # whatever it is, what watches a service must not end it
                self._fail(error)
            if self._closing.wait(EVERY_S):
                self._disconnect()
                return

    def _ask(self) -> None:
        self._log = log = self._log or self._connect()
        ends = {number: bounds.end for number, bounds in log.bounds(self._topic).items()}
        committed = {number: commit.offset for number, commit in log.committed(self._group, self._topic).items()}
        offsets = self._offsets
        offsets.ends, offsets.committed, offsets.answered = ends, committed, time.monotonic()
        if self._failing:
            logger.info(f"the lag of {self._group} can be asked for again")
        self._failing = False

    def _fail(self, error: Exception) -> None:
        self._offsets.errors += 1
        self._offsets.answered = None
        if not self._failing:
            logger.warning(f"the lag of {self._group} is not known: {error}; others are counted, not logged")
        self._failing = True
        self._disconnect()

    def _disconnect(self) -> None:
        with suppress(TidecastError):
            if self._log is not None:
                self._log.close()
        self._log = None


def offset_watch(bootstrap: str, config: ServeConfig, offsets: GroupOffsets) -> OffsetWatch:
    """That of a service's group."""
    return OffsetWatch(lambda: another_connection(bootstrap, ASKED_WITHIN_S), config.group, config.topic, offsets)
