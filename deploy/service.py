"""The consumer service. The order of its steps is what keeps every forecast:

1. poll
2. decode; a record that is no event becomes a dead letter
3. extend the windows
4. predict the micro-batch
5. produce forecasts and dead letters, each into its record's partition
6. flush, and look at every acknowledgement
7. commit the offsets X, with R, the position of the last checkpoint, in their metadata
8. when one is due, a checkpoint pass: changed windows, their position and the offsets, as one transaction
9. only then poll again

Killed anywhere, a restart takes the windows of the last pass, replays [R, X) emitting nothing, and goes on at X: what
was not committed is read, and forecast, again.
"""

import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from threading import Event as Flag
from typing import NamedTuple

from deploy.config import ConfigError, Device, ServeConfig, open_log
from deploy.console import say
from deploy.messages import dead_letter
from deploy.predictor import Predictor, fetch
from deploy.tasks import Answerable, Task, Windower, task_of
from pipeline import checkpoint
from pipeline.events import InvalidEvent
from pipeline.grid import Counts
from pipeline.log import Commit, EventLog, Poll, Record

POLL_S = 0.2
REPORT_S = 10.0


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
        return Commit(self.position, checkpoint.encode_metadata(self.checkpoint))


class Extended(NamedTuple):
    """What a partition's polled records came to: `ready` tagged by a record's place, and those that are no events."""

    partition: int
    records: Sequence[Record]
    ready: Answerable
    invalid: list[tuple[Record, InvalidEvent]]


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
        self, log: EventLog, predictor: Predictor, task: Task, config: ServeConfig, say: Callable[[str], None]
    ) -> None:
        """Make the topics that are missing, fence a predecessor of the same instance, then join the group."""
        self.totals = Totals()
        self._log, self._predictor, self._task, self._config, self._say = log, predictor, task, config, say
        self._owned: dict[int, Partition] = {}
        self._began = 0.0
        self._reported = 0
        self._reasons: set[str] = set()
        self._count, self._topic_id = log.partitions(config.topic), log.topic_id(config.topic)
        self._make_topics()
        self._writer = log.writer()
        self._passes = log.writer(f"{config.group}-{config.instance}")
        self._member = log.join(config.group, config.topic, instance=config.instance)

    def _make_topics(self) -> None:
        config = self._config
        for topic in (config.output, config.dead_letters, config.state_topic):
            count = self._log.create_topic(topic, self._count, compacted=topic == config.state_topic)
            if count < self._count:
                raise ConfigError(f"{topic} has {count} partitions, and {config.topic} {self._count}")

    def run(self, stop: Flag) -> Totals:
        """Serve until `stop` is set; then the batch in hand is finished, and a last checkpoint written."""
        settled, checkpoint_due, report_due = False, _Every(self._config.checkpoint_s), _Every(REPORT_S)
        while not stop.is_set():
            poll = self._member.poll(POLL_S, self._config.max_batch)
            settled = poll.settled
            self._rebalance(poll, stop)
            if poll.records:
                self._process(poll.records)
            if settled and checkpoint_due():
                self._checkpoint(self._owned)
            self._report(caught_up=not poll.records, due=report_due())
        if settled:
            self._checkpoint(self._owned)
        for partition in list(self._owned):
            self._drop(partition)
        return self.totals

    def _report(self, caught_up: bool, due: bool) -> None:
        """Say how it goes: the first time that nothing waits, and every REPORT_S in which records came."""
        if self.totals.records > self._reported and (due or (caught_up and not self._reported)):
            self._say(f"{'caught up: ' if caught_up else ''}{self.totals.in_words(self._task.called)}")
            self._reported = self.totals.records

    def _rebalance(self, poll: Poll, stop: Flag) -> None:
        """Give up what was revoked, take over what was assigned. A first checkpoint comes before any record."""
        for partition in poll.revoked:
            self._drop(partition)
        for partition in poll.assigned:
            if not stop.is_set():
                self._take_over(partition)
        if poll.settled:
            self._checkpoint([number for number, owned in self._owned.items() if owned.checkpoint is None])

    def _take_over(self, partition: int) -> None:
        """Rebuild a partition's windows as they were at its committed offset, and read on from there."""
        log, config = self._log, self._config
        committed = self._member.committed(partition)
        windower = self._task.windower()
        found = checkpoint.recover(log, config.topic, config.state_topic, partition, committed, windower)
        for note in found.notes:
            self._say(f"{config.topic}/{partition}: {note}")
        if found.position is None or found.replay_from is None:
            bounds = log.bounds(config.topic)[partition]
            start = bounds.start if config.start == "earliest" else bounds.end
            owned = Partition(windower, None, start)
        else:
            owned = Partition(windower, found.replay_from, found.position)
            for records in log.read(config.topic, partition, found.replay_from, found.position):
                self._extend(windower, records)
            windower.counts = Counts()
        self._owned[partition] = owned
        self._member.seek(partition, owned.position)

    def _drop(self, partition: int) -> None:
        counts = self._owned.pop(partition).windower.counts
        self.totals.late += counts.late
        self.totals.duplicate += counts.duplicate

    def _process(self, polled: Mapping[int, Sequence[Record]]) -> None:
        """Steps 2 to 7 for one poll's records."""
        self._began = self._began or time.monotonic()
        batch = [
            Extended(partition, records, *self._extend(self._owned[partition].windower, records))
            for partition, records in polled.items()
        ]
        self._produce(batch)
        self._writer.flush()
        for partition, records in polled.items():
            self._owned[partition].position = records[-1].offset + 1
            self.totals.records += len(records)
            self.totals.tombstones += sum(record.value is None for record in records)
        self._member.commit({partition: self._owned[partition].commit() for partition in polled})
        self.totals.seconds = time.monotonic() - self._began

    def _extend(
        self, windower: Windower, records: Sequence[Record]
    ) -> tuple[Answerable, list[tuple[Record, InvalidEvent]]]:
        decode, push = self._task.decode, windower.push
        invalid: list[tuple[Record, InvalidEvent]] = []
        for place, record in enumerate(records):
            if record.value is None:
                continue
            try:
                push(decode(record), place)
            except InvalidEvent as error:
                invalid.append((record, error))
        return windower.take(), invalid

    def _produce(self, batch: Sequence[Extended]) -> None:
        """Predict what all partitions have ready together, and send what came of the batch."""
        together = batch[0].ready.concat([extended.ready for extended in batch])
        payloads = self._task.encode(together, self._predictor.predict(together))
        for partition, records, ready, invalid in batch:
            for key, place in zip(ready.keys, ready.tag.tolist(), strict=True):
                self._send(self._config.output, partition, key, next(payloads), records[place])
            for record, error in invalid:
                letter = dead_letter(record, error)
                self._send(self._config.dead_letters, partition, letter.key, letter.value, record, letter.headers)
                self._warn(record, error)
            self.totals.dead_letters += len(invalid)
        self.totals.forecasts += len(together)

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
            record = checkpoint.PartitionRecord(
                position=owned.position, partitions=self._count, topic_id=self._topic_id
            )
            checkpoint.write_pass(
                self._passes, self._member, self._config.state_topic, partition, owned.windower, record
            )
            owned.checkpoint = owned.position


def serve(config: ServeConfig, model: str, device: Device, bootstrap: str, tracking_uri: str) -> dict[str, object]:
    """`tidecast serve`: run until SIGTERM or Ctrl-C; what was done."""
    stop = _stop_on_signals()
    predictor = fetch(model, tracking_uri, device)
    task = task_of(predictor)
    config = replace(config, output=config.output or f"{config.topic}-{task.called}")
    with closing(open_log(bootstrap)) as log:
        service = Service(log, predictor, task, config, say)
        say(f"{config.topic} -> {config.output} as {config.group}/{config.instance}, on {log.label}")
        say(f"{predictor.label} on {predictor.device}: {predictor.because}")
        totals = service.run(stop)
    unused = f", {totals.late:,} late and {totals.duplicate:,} duplicate events not used"
    say(f"stopped: {totals.in_words(task.called)}{unused if task.called == 'forecasts' else ''}")
    return {"model": predictor.label, "device": predictor.device, "output": config.output, **asdict(totals)}


def _stop_on_signals() -> Flag:
    """A flag that SIGTERM and Ctrl-C set; a second Ctrl-C ends the process at once."""
    stop = Flag()

    def ask(number: int, _: object) -> None:
        stop.set()
        if number == signal.SIGINT:  # a supervisor may well send SIGTERM twice
            signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop
