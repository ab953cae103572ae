"""Follows the topics, in a thread: what comes, and meanwhile what they hold, from the end backwards as far as wanted.
Never as a member of the group, and never writing. What fails is said on the page, and tried again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from deploy.dashboard.topics.followed import Followed
from deploy.dashboard.topics.state import State
from pipeline.log import Bounds, Commit, EventLog, Member, Record
from pipeline.log.topics import TopicIdentity
from tidecast.errors import LogUnavailable, NotAuthorized, TidecastError, UnknownTopic

logger = logging.getLogger(__name__)

WATCHED_S, IDLE_S = 0.25, 0.5
"""Between two looks at input and output: while somebody has the page open, and otherwise."""
EVERY_S = {"scores": 1.0, "alerts": 1.0, "dead_letters": 2.0, "shadow": 5.0, "state": 5.0}
"""Between two looks at the other topics."""
IDENTITY_S = 2.0
GROUP_S = 2.0
TAKEN = 250
"""Records that are taken at once: requests wait so long."""
CHUNK = 5_000
"""Records of a topic that are read at once."""
FAR_BEHIND = 4 * CHUNK
"""Records of a topic that may wait: of more the newest are read first."""
RESTS, RESTS_BEHIND, LONGEST_PAUSE_S = 0.5, 5.0, 2.0
"""How long it rests in proportion to what a read took, of the past and where records come faster than they are read:
the service that writes them may need this machine; and for how long at most, seconds.
"""
NEWEST = 50_000
"""Records of a topic that are read in any case, however old: they may be replayed ones."""
MOST = 1_000_000
"""Most records of a topic that are read of the past."""
TAIL = {"state": 200}
"""Records of each partition that are enough of the past."""
RETRY_S, LONGEST_RETRY_S = 0.5, 5.0


class Reader:
    """Reads all topics into the state."""

    def __init__(
        self, connect: Callable[[], EventLog], log: EventLog, state: State, since: int | None, *, members: bool
    ) -> None:
        """`log` is open already, `connect` opens another once it has failed for long; both are closed by `stop`.

        `since` is how far back the past is read, epoch milliseconds; `members` whether the log knows a group's.
        """
        self._connect, self._log, self._state, self._since = connect, log, state, since
        self._knows_members = members
        self.topics = [Followed(kind, name) for kind, name in state.topics.named.items()]
        self.error: str | None = None
        """Why the log can't be read now."""
        self.failing_since: float | None = None
        """Since when, epoch seconds."""
        self._behind = False
        """Whether records come faster than they are read."""
        self.watched = False
        """Whether somebody has the page open."""
        self._stop = threading.Event()
        self._unread: LogUnavailable | None = None
        """Why a topic could not be read, the last time."""
        self._identified = self._grouped = float("-inf")
        self._had_any = False
        """Whether there was any of the topics."""
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and close the log; a call to it that hangs is left behind."""
        self._stop.set()
        self._thread.join(5)
        with suppress(Exception):  # whatever it was doing
            self._log.close()

    @property
    def progress(self) -> dict[str, object]:
        """How much of the past has been read."""
        total, left = sum(each.past for each in self.topics), sum(each.left for each in self.topics)
        caught_up = not left and all(each.bounds or each.refused for each in self.topics if each.id)
        done: dict[str, object] = {"done": total - left, "total": total, "caught_up": caught_up and self._grouped > 0}
        return done | {"skipped": sum(each.skipped for each in self.topics)}

    def followed(self, kind: str) -> Followed:
        """The topic of a kind."""
        return next(each for each in self.topics if each.kind == kind)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                more = self._look()
                if self.error:
                    logger.info(f"{self._log.label}: reading again")
                self.error, self.failing_since, failures = None, None, 0
            except Exception as error:
                self._failed(error)
                failures, more = failures + 1, False
            with self._state.lock:
                self._state.service.tick()
            if failures:
                self._stop.wait(min(RETRY_S * 2**failures, LONGEST_RETRY_S))
            elif not more:
                self._stop.wait(WATCHED_S if self.watched else IDLE_S)
            else:
                rest = RESTS_BEHIND if self._behind else RESTS
                self._stop.wait(min(LONGEST_PAUSE_S, rest * (time.monotonic() - begun)))
            if failures > 2:
                self._reconnect()

    def _failed(self, error: Exception) -> None:
        """Say a failure once."""
        text = str(error) if isinstance(error, TidecastError) else f"{type(error).__name__}: {error}"
        if text != self.error and isinstance(error, TidecastError):
            logger.warning(f"{text}; trying again")
        elif text != self.error:  # a bug, here or in a library: the page goes on
            logger.exception("reading the topics failed; trying again")
        self.error, self.failing_since = text, self.failing_since or time.time()

    def _reconnect(self) -> None:
        with suppress(Exception):  # of the old one: it has failed
            new = self._connect()
            self._log, old = new, self._log
            old.close()

    def _look(self) -> bool:
        """Read what has come, and a part of the past; whether there is more to read."""
        now, more = time.monotonic(), False
        self._unread = None
        if now - self._identified > IDENTITY_S:
            self._identify()
            self._identified = now
        for topic in self.topics:
            if topic.id and not topic.refused and time.monotonic() >= topic.due:
                topic.due = time.monotonic() + EVERY_S.get(topic.kind, 0.0)
                more |= self._guarded(topic, self._read_new)
        self._behind = more
        for topic in self.topics:
            if topic.left and not self._behind:
                more |= self._guarded(topic, self._read_past)
        if now - self._grouped > GROUP_S:
            self._look_at_group()
            self._grouped = now
        if self._unread:
            raise self._unread
        return more

    def _identify(self) -> None:
        """Which topics there are, and whether they are those of before."""
        found = self._identities([each for each in self.topics if not each.refused])
        for topic in self.topics:
            identity = found[topic.name].id if topic.name in found else ""
            if identity != topic.id:
                if topic.id:
                    logger.info(f"topic {topic.name} was {'made anew' if identity else 'deleted'}")
                    self._state.forget(topic.kind)
                topic.reset(identity)
                self._had_any |= bool(identity)
        if self._had_any and not found:  # an embedded log may be another file now
            self._reconnect()

    def _identities(self, topics: Sequence[Followed]) -> Mapping[str, TopicIdentity]:
        """Those of these topics that exist; ones that may not even be looked up are refused."""
        try:
            return self._log.identities([each.name for each in topics])
        except NotAuthorized as error:
            if len(topics) == 1:
                self._refuse(topics[0], error)
                return {}
        return {name: one for topic in topics for name, one in self._identities([topic]).items()}

    def _refuse(self, topic: Followed, error: NotAuthorized) -> None:
        topic.refused = str(error)
        logger.warning(f"{error}; the page does without {topic.name}")

    def _guarded(self, topic: Followed, read: Callable[[Followed], bool]) -> bool:
        """Read a topic that may be deleted meanwhile, not be ours to read, or be held up by an open transaction.

        Whether there is more.
        """
        try:
            return read(topic)
        except UnknownTopic:
            self._identified = float("-inf")
        except NotAuthorized as error:
            self._refuse(topic, error)
        except LogUnavailable as error:
            self._unread, topic.due = error, time.monotonic() + LONGEST_RETRY_S
        return False

    def _read_new(self, topic: Followed) -> bool:
        topic.bounds = self._log.bounds(topic.name)
        if new := {number: each for number, each in topic.bounds.items() if number not in topic.positions}:
            self._begin(topic, new)
        share = max(1, CHUNK // len(topic.bounds))
        if topic.waiting > FAR_BEHIND:
            self._state.skip(topic.kind, *topic.skip(share))
        ranges = {}
        for number, (start, end) in topic.bounds.items():
            at = max(topic.positions[number], start)
            ranges[number] = Bounds(at, min(end, at + share))
        self._read(topic, ranges, live=True)
        topic.positions |= {number: each.end for number, each in ranges.items()}
        return any(each.end < topic.bounds[number].end for number, each in ranges.items())

    def _read_past(self, topic: Followed) -> bool:
        """Read a further part of the past, just before what has been read of it."""
        open_parts = [number for number, at in topic.behind.items() if at > topic.floor[number]]
        share = max(1, CHUNK // len(open_parts))
        ranges = {}
        for number in open_parts:
            start = topic.bounds[number].start if number in topic.bounds else 0
            topic.floor[number] = max(topic.floor[number], start)  # retention goes on
            end = topic.behind[number]
            ranges[number] = Bounds(min(end, max(topic.floor[number], end - share)), end)
        self._read(topic, ranges, live=False)
        topic.behind |= {number: each.start for number, each in ranges.items()}
        return topic.left > 0

    def _read(self, topic: Followed, ranges: Mapping[int, Bounds], *, live: bool) -> None:
        if all(start >= end for start, end in ranges.values()):
            return
        held: dict[int, list[Record]] = {}
        for records in self._log.read_partitions(topic.name, ranges):
            if live:
                self._take(topic, records, live=True)
            else:
                held.setdefault(records[0].partition, []).extend(records)
        for records in held.values():
            self._take(topic, records, live=False)

    def _take(self, topic: Followed, records: Sequence[Record], *, live: bool) -> None:
        firsts = range(0, len(records), TAKEN)
        for first in firsts if live else reversed(firsts):
            part = records[first : first + TAKEN]
            self._state.take(topic.kind, part, live=live)
            number, last = part[-1].partition, part[-1].offset
            topic.newest[number] = max(last, topic.newest.get(number, last))
            if live:
                topic.positions[part[-1].partition] = part[-1].offset + 1
            else:
                topic.behind[part[0].partition] = part[0].offset
                time.sleep(0.001)  # requests come first

    def _begin(self, topic: Followed, new: Mapping[int, Bounds]) -> None:
        """Where reading begins in partitions that are new: at their end, and backwards from there."""
        least, most = NEWEST // len(topic.bounds), MOST // len(topic.bounds)
        if topic.kind in TAIL:
            least = most = TAIL[topic.kind]
        since = {} if self._since is None else self._log.offsets_at(topic.name, self._since)
        for number, (start, end) in new.items():
            topic.floor[number] = max(start, end - most, min(end - least, since.get(number, end)))
            topic.positions[number] = topic.behind[number] = end
            topic.past += end - topic.floor[number]

    def _look_at_group(self) -> None:
        topics, source = self._state.topics, self.followed("input")
        committed: Mapping[int, Commit] | None = None
        members: list[Member] | None = None
        if source.id and topics.group:
            with suppress(NotAuthorized, UnknownTopic):
                committed = self._log.committed(topics.group, topics.input)
                members = self._log.members(topics.group) if self._knows_members else None
        with self._state.lock:
            self._state.service.look(source.ends, committed, members)
