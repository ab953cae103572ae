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

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Event as Flag

from deploy.serving.model_updates import ModelUpdater
from deploy.serving.output import Extended, Output
from deploy.serving.partitions import Partitions, extend
from deploy.serving.predictor import Predictor
from deploy.serving.shadow import Shadow
from deploy.serving.stats import ServiceStats
from deploy.serving.tasks import Task, task_of
from deploy.serving.watchdog import StallDetector, Watchdog
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.log import EventLog, Poll, Record
from pipeline.windows.grid import Counts
from tidecast.errors import ConfigError, NotAuthorized

logger = logging.getLogger(__name__)

POLL_S = 0.2
REPORT_S = 10.0
STALLED_LOOKS = 3
"""Looks, REPORT_S apart, after which a partition with a lag and no progress ends the service."""


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


class _Interval:
    """True once in so many seconds, and not at first."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def __call__(self) -> bool:
        due = time.monotonic() - self._last >= self._seconds
        if due:
            self._last = time.monotonic()
        return due


class Service:
    """One consumer of a group, serving one model on one topic."""

    def __init__(
        self,
        log: EventLog,
        predictor: Predictor,
        task: Task,
        config: ServeConfig,
        updater: ModelUpdater | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        """Make the topics that are missing, fence a predecessor of the same instance, then join the group.

        A follower brings other models to go on with, a shadow answers beside them.
        """
        self._updater, self._shadow = updater, shadow
        self._log, self._predictor, self._task, self._config = log, predictor, task, config
        self.stats = ServiceStats(task.output_kind)
        self.stats.serves(predictor)
        self._began = 0.0
        self._reported = 0
        self._unsaved = 0
        self._watched, self._stall_detector = Watchdog(log.timeout_s), StallDetector(STALLED_LOOKS)
        _make_topics(log, config)
        with self._watched("fencing a predecessor"):
            passes = log.producer(f"{config.group}-{config.instance}")
        self._producer = passes if config.guarantee == "exactly-once" else log.producer()
        self._consumer = log.consumer(config.group, config.topic, instance=config.instance, static=config.static)
        self._partitions = Partitions(log, config, self._consumer, passes, self._watched)
        self._output = Output(self._producer, config, shadow)

    @property
    def output(self) -> str:
        """The topic that it writes to."""
        return self._config.output

    def run(self, stop: Flag) -> ServiceStats:
        """Serve until `stop` is set; then the batch in hand is finished, and a last checkpoint written."""
        rebalancing, checkpoint_due, report_due = True, _Interval(self._config.checkpoint_s), _Interval(REPORT_S)
        while not stop.is_set():
            poll = self._poll()
            rebalancing = poll.rebalancing
            self._rebalance(poll)
            self._swap()
            if poll.records:
                self._process(poll.records)
            if not rebalancing and (checkpoint_due() or self._unsaved >= self._config.checkpoint_records):
                self._partitions.checkpoint()
                self._unsaved = 0
            self._report(caught_up=not poll.records, due=report_due())
        if not rebalancing:
            self._partitions.checkpoint()
        self._watched.close()
        return self.stats

    def _swap(self) -> None:
        """Go on with another model, if there is one. It takes the windows that there are."""
        made = self._updater and self._updater.take()
        if made:
            self._predictor, self._task = made, task_of(made, self._config)
            self.stats.serves(made)
            self.stats.swaps += 1
            logger.info(f"{made.label} serves now, on {made.device}")
        if self._shadow:
            self._shadow.follow()

    def _poll(self) -> Poll:
        with self._watched("poll"):
            poll = self._consumer.poll(0 if self._partitions.waiting else POLL_S, self._config.max_records)
        if poll.records:
            failpoint.reached("polled")
        return poll

    def _rebalance(self, poll: Poll) -> None:
        """Give up what was revoked, take over what was assigned, one partition between two polls."""
        for partition in poll.revoked:
            self._partitions.drop(partition)
        self._partitions.assign(poll.assigned)
        self._partitions.take_over_next(self._task)
        if not poll.rebalancing:
            self._partitions.start_new()

    def _report(self, caught_up: bool, due: bool) -> None:
        """Say how it goes: the first time that nothing waits, and every REPORT_S in which records came."""
        if due:
            self._look()
        stats = self.stats
        if stats.records > self._reported and (due or (caught_up and not self._reported)):
            logger.info(
                f"{'caught up: ' if caught_up else ''}{stats.line()}{f'; {stats.gauges_line()}' if due else ''}"
            )
            self._reported = stats.records

    def _look(self) -> None:
        """Notice what makes no error: a partition that stands still, a topic that is not the one it was."""
        with self._watched("end offsets"):
            self.stats.lag = self._consumer.lag()
        self._stall_detector.look(self._partitions.positions, self.stats.lag)
        self._partitions.check_topic()

    def _process(self, polled: Mapping[int, Sequence[Record]]) -> None:
        """Steps 2 to 7 for one poll's records, a micro-batch after the other.

        What fails is raised: the process ends, and its next start goes on at the last commit.
        """
        self._began = self._began or time.monotonic()
        exactly_once = self._config.guarantee == "exactly-once"
        if exactly_once:
            self._producer.begin()
        for part in _slices(polled, self._config.max_batch):
            batch = [self._extend(partition, records) for partition, records in part]
            failpoint.reached("extended")
            forecasts = self._output.write(batch, self._predictor, self._task)
            self._count(batch, forecasts)
        failpoint.reached("produced")
        with self._watched("flush"):
            self._producer.flush()
        failpoint.reached("flushed")
        offsets = self._partitions.advance(polled)
        with self._watched("commit"):
            if exactly_once:
                self._producer.commit(offsets, self._consumer)
            else:
                self._consumer.commit(offsets)
        failpoint.reached("committed")
        self._count_committed(polled)

    def _extend(self, partition: int, records: Sequence[Record]) -> Extended:
        windower = self._partitions[partition].windower
        unused = extend(windower, self._task, records)
        return Extended(partition, records, windower.take(), unused)

    def _count(self, batch: Sequence[Extended], forecasts: int) -> None:
        for extended in batch:
            windower = self._partitions[extended.partition].windower
            self.stats.count_windows(windower.counts)
            windower.counts = Counts()
            self.stats.dead_letters.update(error.reason for _, error in extended.unused.invalid)
        self.stats.forecasts += forecasts
        self.stats.batch_sizes.add([forecasts])

    def _count_committed(self, polled: Mapping[int, Sequence[Record]]) -> None:
        stats, now = self.stats, time.time() * 1000
        for records in polled.values():
            stats.records += len(records)
            stats.tombstones += sum(record.value is None for record in records)
            stats.latency_ms.add([now - record.timestamp for record in records if record.timestamp >= 0])
        self._unsaved += sum(map(len, polled.values()))
        stats.seconds = time.monotonic() - self._began


def _make_topics(log: EventLog, config: ServeConfig) -> None:
    """Create what is missing of a service's topics. Raises ConfigError for those that can't be used."""
    with suppress(NotAuthorized):  # to read a topic's settings is a right of its own
        if log.topic_config(config.topic).compacted:
            raise ConfigError(f"{config.topic} is compacted: events vanish from it, so windows would have holes")
    needed = log.partitions(config.topic)
    others = (config.dead_letters, config.late_topic, config.shadow_topic, config.state_topic)
    for topic in filter(None, (config.output, *others)):
        count = log.create_topic(topic, needed, compacted=topic == config.state_topic)
        if count < needed:
            raise ConfigError(f"{topic} has {count} partitions, and {config.topic} {needed}")
