"""The consumer service. The order of its steps is what keeps every forecast, under either guarantee:

1. poll
2. decode; a record that is no event becomes a dead letter
3. extend the windows
4. predict the micro-batch
5. produce forecasts and dead letters, each into its record's partition
6. flush, and look at every acknowledgement
7. commit the offsets X, with R, the position of the last checkpoint, in their metadata
8. when one is due, a checkpoint pass: changed windows, their position and the offsets, as one transaction
9. only then poll again: polling lets the client rejoin its group, and a commit would then carry the new generation
   with the old records

At least once, 7 follows 6. Exactly once, 5 to 7 are one transaction, and its offsets are committed with the generation
of the poll that brought the records.

Killed anywhere, a restart takes the windows of the last pass, replays [R, X) emitting nothing, and goes on at X: what
was not committed is read, and forecast, again.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event as Flag
from typing import NamedTuple

from deploy.config import ConfigError, ServeConfig
from deploy.follow import Follower
from deploy.messages import INPUT, OFFSETS, dead_letter
from deploy.predictor import Predictor
from deploy.shadow import Shadow
from deploy.tasks import Answerable, Task, Windower, task_of
from deploy.watchdog import Standstill, Watchdog
from pipeline import checkpoint, failpoint
from pipeline.codec import PartitionRecord, StateMismatch, encode_metadata
from pipeline.events import InvalidEvent
from pipeline.grid import Counts
from pipeline.log import Commit, EventLog, NotPermitted, Poll, Record

LATE = InvalidEvent("late", "it came after its series' step was taken or passed")
POLL_S = 0.2
REPORT_S = 10.0
STANDSTILL = 3
"""Looks, REPORT_S apart, after which a partition with a lag and no progress ends the service."""


@dataclass(slots=True)
class Totals:
    """What a service has done since it started; `seconds` from its first record to its last commit.

    `forecasts` counts what the model said of records, labels of texts too.
    """

    records: int = 0
    forecasts: int = 0
    dead_letters: int = 0
    tombstones: int = 0
    late: int = 0
    duplicate: int = 0
    swaps: int = 0
    seconds: float = 0.0

    def in_words(self, called: str) -> str:
        """The numbers as a line; `called` is what was written for a record."""
        return f"{self.records:,} records, {self.forecasts:,} {called}, {self.dead_letters:,} dead letters"


@dataclass(slots=True)
class Partition:
    """An input partition that this member owns."""

    windower: Windower
    checkpoint: int | None
    """R: where its last checkpoint stands; None before a new group's first."""
    position: int
    """X: the next offset to read."""

    def commit(self) -> Commit:
        """X, and R beside it. The first checkpoint comes before the first record, so there is one."""
        assert self.checkpoint is not None
        return Commit(self.position, encode_metadata(self.checkpoint))


class Extended(NamedTuple):
    """What a partition's polled records came to.

    `ready` is tagged by the offset of the record that completed it; `invalid` are no events, `late` events not used.
    """

    partition: int
    records: Sequence[Record]
    ready: Answerable
    invalid: list[tuple[Record, InvalidEvent]]
    late: list[Record]


def _slices(polled: Mapping[int, Sequence[Record]], most: int) -> Iterator[list[tuple[int, Sequence[Record]]]]:
    """A poll's records in their order, up to `most` at a time."""
    part: list[tuple[int, Sequence[Record]]] = []
    room = most
    for partition, left in polled.items():
        while left:
            part.append((partition, left[:room]))
            left, room = left[room:], max(0, room - len(left))
            if not room:
                yield part
                part, room = [], most
    if part:
        yield part


class _Every:
    """True once in so many seconds, and not at first."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def __call__(self) -> bool:
        due = time.monotonic() - self._last >= self._seconds
        if due:
            self._last = time.monotonic()
        return due


class Service:
    """One member of a group, serving one model on one topic."""

    def __init__(
        self,
        log: EventLog,
        predictor: Predictor,
        task: Task,
        config: ServeConfig,
        say: Callable[[str], None],
        follower: Follower | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        """Make the topics that are missing, fence a predecessor of the same instance, then join the group.

        A follower brings other models to go on with, a shadow answers beside them.
        """
        self._follower, self._shadow = follower, shadow
        self.totals = Totals()
        self._log, self._predictor, self._task, self._config, self._say = log, predictor, task, config, say
        self._owned: dict[int, Partition] = {}
        self._waiting: deque[int] = deque()
        self._began = 0.0
        self._reported = 0
        self._unsaved = 0
        self._reasons: set[str] = set()
        self._watched, self._standstill = Watchdog(log.patience), Standstill(STANDSTILL)
        self._count, self._topic_id = log.partitions(config.topic), log.topic_id(config.topic)
        self._make_topics()
        with self._watched("fencing a predecessor"):
            self._passes = log.writer(f"{config.group}-{config.instance}")
        self._writer = self._passes if config.guarantee == "exactly-once" else log.writer()
        self._member = log.join(config.group, config.topic, instance=config.instance, static=config.static)

    def _make_topics(self) -> None:
        config = self._config
        with suppress(NotPermitted):  # to read a topic's settings is a right of its own
            if self._log.policy(config.topic).compacted:
                raise ConfigError(f"{config.topic} is compacted: events vanish from it, so windows would have holes")
        others = (config.dead_letters, config.late_topic, config.shadow_topic, config.state_topic)
        for topic in filter(None, (config.output, *others)):
            count = self._log.create_topic(topic, self._count, compacted=topic == config.state_topic)
            if count < self._count:
                raise ConfigError(f"{topic} has {count} partitions, and {config.topic} {self._count}")

    @property
    def serving(self) -> Predictor:
        """The model at work."""
        return self._predictor

    @property
    def called(self) -> str:
        """What it writes, in one word."""
        return self._task.called

    @property
    def output(self) -> str:
        """Where it writes that."""
        return self._config.output

    def run(self, stop: Flag) -> Totals:
        """Serve until `stop` is set; then the batch in hand is finished, and a last checkpoint written."""
        settled, checkpoint_due, report_due = False, _Every(self._config.checkpoint_s), _Every(REPORT_S)
        while not stop.is_set():
            poll = self._poll()
            settled = poll.settled
            self._rebalance(poll)
            self._swap()
            if poll.records:
                self._process(poll.records)
            if settled and (checkpoint_due() or self._unsaved >= self._config.checkpoint_records):
                self._checkpoint(self._owned)
                self._unsaved = 0
            self._report(caught_up=not poll.records, due=report_due())
        if settled:
            self._checkpoint(self._owned)
        for partition in list(self._owned):
            self._drop(partition)
        self._watched.close()
        return self.totals

    def _swap(self) -> None:
        """Go on with another model, if there is one. It takes the windows that there are."""
        made = self._follower and self._follower.take()
        if made:
            self._predictor, self._task = made, task_of(made, self._config)
            self.totals.swaps += 1
            self._say(f"{made.label} serves now, on {made.device}")
        if self._shadow:
            self._shadow.follow()

    def _poll(self) -> Poll:
        with self._watched("poll"):
            poll = self._member.poll(0 if self._waiting else POLL_S, self._config.max_records)
        if poll.records:
            failpoint.reached("polled")
        return poll

    def _report(self, caught_up: bool, due: bool) -> None:
        """Say how it goes: the first time that nothing waits, and every REPORT_S in which records came."""
        if due:
            self._look()
        if self.totals.records > self._reported and (due or (caught_up and not self._reported)):
            self._say(f"{'caught up: ' if caught_up else ''}{self.totals.in_words(self._task.called)}")
            self._reported = self.totals.records

    def _look(self) -> None:
        """Notice what makes no error: a partition that stands still, a topic that is not the one it was."""
        with self._watched("end offsets"):
            behind = self._member.behind()
        self._standstill.look({number: owned.position for number, owned in self._owned.items()}, behind)
        topic = self._config.topic
        if (self._log.partitions(topic), self._log.topic_id(topic)) != (self._count, self._topic_id):
            raise StateMismatch(f"{topic} was made anew, or has more partitions, since this service began")

    def _rebalance(self, poll: Poll) -> None:
        """Give up what was revoked, take over what was assigned, one partition between two polls.

        A first checkpoint, and only then a partition's first record: so where a new group began is never forgotten.
        """
        for partition in poll.revoked:
            self._drop(partition)
        self._waiting.extend(poll.assigned)
        if self._waiting:
            self._take_over(self._waiting.popleft())
        if poll.settled:
            for partition, owned in self._owned.items():
                if owned.checkpoint is None:
                    self._checkpoint([partition])
                    self._member.seek(partition, owned.position)

    def _take_over(self, partition: int) -> None:
        """Rebuild a partition's windows as they were at its committed offset, and read on from there."""
        failpoint.reached("assigned")
        log, config = self._log, self._config
        with self._watched("committed offset"):
            committed = self._member.committed(partition)
        windower = self._task.windower()
        found = checkpoint.recover(
            log, config.topic, config.state_topic, partition, committed, windower, lost=config.lost
        )
        failpoint.reached("restored")
        for note in found.notes:
            self._say(f"{config.topic}/{partition}: {note}")
        if found.position is None or found.replay_from is None:
            bounds = log.bounds(config.topic)[partition]
            start = bounds.start if config.start == "earliest" else bounds.end
            self._owned[partition] = Partition(windower, None, start)
            return
        for records in log.read(config.topic, partition, found.replay_from, found.position):
            self._extend(partition, windower, records)
        windower.counts = Counts()
        failpoint.reached("replayed")
        self._owned[partition] = Partition(windower, found.replay_from, found.position)
        self._member.seek(partition, found.position)

    def _drop(self, partition: int) -> None:
        """Forget a partition, taken over or still waiting to be."""
        if partition in self._waiting:
            self._waiting.remove(partition)
        elif partition in self._owned:
            counts = self._owned.pop(partition).windower.counts
            self.totals.late += counts.late
            self.totals.duplicate += counts.duplicate

    def _process(self, polled: Mapping[int, Sequence[Record]]) -> None:
        """Steps 2 to 7 for one poll's records, a micro-batch after the other.

        What fails is raised: the process ends, and its next start goes on at the last commit.
        """
        self._began = self._began or time.monotonic()
        exactly_once = self._config.guarantee == "exactly-once"
        if exactly_once:
            self._writer.begin()
        for part in _slices(polled, self._config.max_batch):
            batch = [self._extend(partition, self._owned[partition].windower, records) for partition, records in part]
            failpoint.reached("extended")
            self._produce(batch)
        failpoint.reached("produced")
        with self._watched("flush"):
            self._writer.flush()
        failpoint.reached("flushed")
        for partition, records in polled.items():
            self._owned[partition].position = records[-1].offset + 1
            self.totals.records += len(records)
            self.totals.tombstones += sum(record.value is None for record in records)
        offsets = {partition: self._owned[partition].commit() for partition in polled}
        with self._watched("commit"):
            if exactly_once:
                self._writer.commit(offsets, self._member)
            else:
                self._member.commit(offsets)
        failpoint.reached("committed")
        self._unsaved += sum(map(len, polled.values()))
        self.totals.seconds = time.monotonic() - self._began

    def _extend(self, partition: int, windower: Windower, records: Sequence[Record]) -> Extended:
        decode, push = self._task.decode, windower.push
        invalid: list[tuple[Record, InvalidEvent]] = []
        late: list[Record] = []
        for record in records:
            if record.value is None:
                continue
            try:
                if not push(decode(record), record.offset):
                    late.append(record)
            except InvalidEvent as error:
                invalid.append((record, error))
        return Extended(partition, records, windower.take(), invalid, late)

    def _produce(self, batch: Sequence[Extended]) -> None:
        """Predict what all partitions have ready together, and send what came of the batch."""
        together = batch[0].ready.concat([extended.ready for extended in batch])
        payloads = self._task.encode(together, self._predictor.predict(together))
        self._answer(self._config.output, batch, payloads, self._predictor)
        if self._shadow and (beside := self._shadow.answers(together)) and self._shadow.predictor:
            self._answer(self._config.shadow_topic, batch, iter(beside), self._shadow.predictor)
        for partition, _, _, invalid, late in batch:
            for record, error in invalid:
                letter = dead_letter(record, error)
                self._send(self._config.dead_letters, partition, letter.key, letter.value, record, letter.headers)
                self._warn(record, error)
            for record in late if self._config.late_topic else ():
                letter = dead_letter(record, LATE)
                self._send(self._config.late_topic, partition, letter.key, letter.value, record, letter.headers)
            self.totals.dead_letters += len(invalid)
        self.totals.forecasts += len(together)

    def _answer(self, topic: str, batch: Sequence[Extended], payloads: Iterator[bytes], by: Predictor) -> None:
        """Send a model's answers, each with headers by which it tells what made it and what of."""
        for partition, records, ready, _, _ in batch:
            causes = {record.offset: record for record in records}
            facts = [*by.provenance, (INPUT, f"{self._config.topic}/{partition}".encode())]
            for key, since, offset in zip(ready.keys, ready.since.tolist(), ready.tag.tolist(), strict=True):
                made_of = (OFFSETS, b"%d-%d" % (max(since, 0), offset))
                self._send(topic, partition, key, next(payloads), causes[offset], [*facts, made_of])
            failpoint.reached("producing")

    def _warn(self, record: Record, error: InvalidEvent) -> None:
        """The first of each kind of dead letter is worth a line."""
        if error.reason not in self._reasons:
            self._reasons.add(error.reason)
            self._say(f"{record.topic}/{record.partition} at {record.offset} is no event: {error}")
            self._say(f"it is kept on {self._config.dead_letters}, as all of that kind will be")

    def _send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        cause: Record,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """An output carries the time of the record that caused it, so that doing it again writes the same bytes."""
        timestamp = cause.timestamp if cause.timestamp >= 0 else None
        self._writer.send(topic, partition, key, value, timestamp=timestamp, headers=headers)

    def _checkpoint(self, partitions: Iterable[int]) -> None:
        """Write a pass for each of these partitions that has moved since its last one."""
        for partition in partitions:
            owned = self._owned[partition]
            if owned.position == owned.checkpoint:
                continue
            record = PartitionRecord(
                position=owned.position,
                partitions=self._count,
                topic_id=self._topic_id,
                stream_time=owned.windower.stream_time,
                sections=dict(owned.windower.sections),
            )
            with self._watched("checkpoint"):
                checkpoint.write_pass(
                    self._passes, self._member, self._config.state_topic, partition, owned.windower, record
                )
            owned.checkpoint = owned.position
