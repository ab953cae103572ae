"""Follows the topics, in a thread: first what they hold, as far back as wanted, then what comes; never as a member of
the group, and never writing. What fails is said on the page, and tried again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from deploy.dashboard.state import State, now_ms
from pipeline.log import Bounds, Commit, EventLog, Member, Record
from tidecast.errors import NotAuthorized, TidecastError, UnknownTopic

logger = logging.getLogger(__name__)

WATCHED_S, IDLE_S = 0.25, 0.5
"""Between two looks at input and output: while somebody has the page open, and otherwise."""
EVERY_S = {"scores": 1.0, "alerts": 1.0, "dead_letters": 2.0, "shadow": 5.0, "state": 5.0}
"""Between two looks at the other topics."""
IDENTITY_S = 2.0
GROUP_S = 2.0
AT_ONCE = 250
"""Records that are taken at once: requests wait so long."""
NEWEST = 50_000
"""Records of a topic that are read in any case, however old: they may have been replayed."""
MOST = 1_000_000
"""Most records of a topic that are read of the past."""
TAIL = {"state": 200}
"""Records of each partition that are enough of the past."""
RETRY_S = (0.5, 5.0)


@dataclass(slots=True)
class Followed:
    """A topic that is followed."""

    kind: str
    name: str
    id: str = ""
    """Empty while it does not exist."""
    positions: dict[int, int] = field(default_factory=dict)
    goal: dict[int, int] = field(default_factory=dict)
    """Where the past ended when reading began."""
    first: int = 0
    """Records before those that are read."""
    bounds: dict[int, Bounds] = field(default_factory=dict)
    due: float = 0.0
    refused: str = ""
    """Why it may not be read."""

    @property
    def left(self) -> int:
        """Records of the past that are still to be read."""
        return sum(max(0, end - self.positions.get(number, end)) for number, end in self.goal.items())


class Reader:
    """Reads all topics into the state."""

    def __init__(self, connect: Callable[[], EventLog], log: EventLog, state: State, since: int | None) -> None:
        """`log` is open already; `connect` opens another one once it has failed. `since` is in epoch milliseconds."""
        self._connect, self._log, self._state, self._since = connect, log, state, since
        self.topics = [Followed(kind, name) for kind, name in state.topics.named.items()]
        self.error: str | None = None
        """Why the log can't be read now."""
        self.watched = False
        """Whether somebody has the page open."""
        self._stop = threading.Event()
        self._identified, self._grouped, self._ticked = 0.0, 0.0, 0.0
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, at the latest after the call to the log that is under way."""
        self._stop.set()
        self._thread.join(5)

    @property
    def progress(self) -> dict[str, object]:
        """How much of the past has been read."""
        total = sum(
            sum(each.goal.values()) - sum(each.bounds[n].start for n in each.goal if n in each.bounds) - each.first
            for each in self.topics
            if each.goal
        )
        left = sum(each.left for each in self.topics)
        known = self._identified > 0
        return {"done": max(0, total - left), "total": max(0, total), "caught_up": known and left == 0}

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._look()
                if self.error:
                    logger.info(f"{self._log.label}: reading again")
                self.error, failures = None, 0
            except TidecastError as error:
                if str(error) != self.error:
                    logger.warning(f"{error}; trying again")
                self.error, failures = str(error), failures + 1
            except Exception as error:  # whatever a library raises, the page goes on
                logger.exception("reading the topics failed; trying again")
                self.error, failures = f"{type(error).__name__}: {error}", failures + 1
            with self._state.lock:
                self._state.service.tick()
            if failures:
                self._stop.wait(min(RETRY_S[0] * 2**failures, RETRY_S[1]))
                if failures > 2:
                    self._reconnect()
            else:
                self._stop.wait(WATCHED_S if self.watched else IDLE_S)

    def _reconnect(self) -> None:
        with suppress(TidecastError):
            log, old = self._connect(), self._log
            self._log = log
            old.close()

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._identified > IDENTITY_S or not self._identified:
            self._identify()
            self._identified = now
        behind = True
        while behind and not self._stop.is_set():
            behind = False
            for topic in self.topics:
                if topic.id and not topic.refused and (topic.left or time.monotonic() >= topic.due):
                    topic.due = time.monotonic() + EVERY_S.get(topic.kind, 0)
                    behind |= self._read(topic)
        if now - self._grouped > GROUP_S:
            self._grouped = now
            self._look_at_group()

    def _identify(self) -> None:
        """Which topics there are, and whether they are those of before."""
        found = self._log.identities([each.name for each in self.topics])
        for topic in self.topics:
            here = found.get(topic.name)
            if here is None and topic.id:
                logger.info(f"{topic.name} was deleted")
            if (here.id if here else "") != topic.id:
                if topic.id or topic.positions:
                    self._state.forget(topic.kind)
                topic.id, topic.positions, topic.goal, topic.first = (here.id if here else ""), {}, {}, 0
                topic.bounds, topic.refused = {}, ""

    def _read(self, topic: Followed) -> bool:
        """Read a part of what is new of a topic; whether there is more."""
        try:
            bounds = self._log.bounds(topic.name)
            topic.bounds = bounds
            self._begin(topic, bounds)
            share = max(1, 10_000 // max(1, len(bounds)))
            ranges = {}
            for number, (start, end) in bounds.items():
                at = max(topic.positions[number], start)
                ranges[number] = Bounds(at, min(end, at + share))
            live = not topic.left
            if any(start < end for start, end in ranges.values()):
                for records in self._log.read_partitions(topic.name, ranges):
                    self._take(topic, records, live)
            more = False
            for number, (_, end) in ranges.items():
                topic.positions[number] = end
                more |= end < bounds[number].end
            return more
        except UnknownTopic:
            topic.id = ""
            self._identified = 0.0
            return False
        except NotAuthorized as error:
            topic.refused = str(error)
            logger.warning(f"{error}; what is on {topic.name} is left out")
            return False

    def _take(self, topic: Followed, records: Sequence[Record], live: bool) -> None:
        for first in range(0, len(records), AT_ONCE):
            part = records[first : first + AT_ONCE]
            self._state.take(topic.kind, part, live)
            topic.positions[part[-1].partition] = part[-1].offset + 1
            if not live:
                time.sleep(0.001)  # requests come first

    def _begin(self, topic: Followed, bounds: Mapping[int, Bounds]) -> None:
        """Where reading begins in partitions that are new."""
        new = [number for number in bounds if number not in topic.positions]
        if not new:
            return
        share, most = NEWEST // len(bounds), MOST // len(bounds)
        if topic.kind in TAIL:
            share = most = TAIL[topic.kind]
        since = {} if self._since is None else self._log.offsets_at(topic.name, self._since)
        for number in new:
            start, end = bounds[number]
            wanted = min(since.get(number, end), end - share)
            begin = max(start, wanted, end - most)
            topic.positions[number], topic.goal[number] = begin, end
            topic.first += begin - start

    def _look_at_group(self) -> None:
        topics = self._state.topics
        source = next(each for each in self.topics if each.kind == "input")
        if not source.id or not topics.group:
            return
        committed: Mapping[int, Commit] | None = None
        members: list[Member] | None = None
        with suppress(NotAuthorized, UnknownTopic):
            committed = self._log.committed(topics.group, topics.input)
            members = self._log.members(topics.group) if not self._log.label.startswith("SQLite") else None
            source.bounds = self._log.bounds(topics.input)
        with self._state.lock:
            self._state.service.look(source.bounds, committed, members)


__all__ = ["Followed", "Reader", "now_ms"]
