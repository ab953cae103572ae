"""The consumer loop. The order of its steps is what delivers every forecast, under either guarantee:

1. poll
2. decode; an invalid record becomes a dead letter
3. push the events into the windows
4. predict the micro-batch
5. produce forecasts and dead letters, each to its record's partition
6. flush, and check every acknowledgement
7. commit the offsets X, with R, the position of the last checkpoint, in their metadata
8. when one is due, write a checkpoint: the windows that changed, their position and the offsets, in one transaction
9. poll again

Exactly once, 5 to 7 are one transaction for each poll, and its offsets are committed with the generation of the poll
that returned the records; 8 is written at once. So `poll`, in which the client may rejoin its group, is never called
with an open transaction.

At least once, 6 and 7 come twice a second, when a poll brings nothing, and before partitions are given up: so a record
never waits for the commit of the one before. 6 always precedes 7: an offset is committed when all that came of the
records before it is acknowledged. A partition that was lost is not committed, even if it is back: what is not committed
is dropped with it. A checkpoint is written in slices between the batches: it has the windows as they were when it
began, at R; it is committed right after 7, with the X of then, which is R or later.

Killed at any point, a restart restores the windows of the last checkpoint, replays [R, X) without producing anything,
and continues at X: what was not committed is read and forecast again.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from deploy.grading.state import Grading
from deploy.models.predictor import Predictor
from deploy.models.updates import ModelUpdater
from deploy.serving.checkpoints import Checkpoints
from deploy.serving.commits import Commits
from deploy.serving.identity import Family
from deploy.serving.messages import PartitionBatch
from deploy.serving.monitoring.stats import NOT_JOINED, OutputHealth, ServiceStats
from deploy.serving.monitoring.watchdog import StallDetector, Watchdog
from deploy.serving.output import Output, Written
from deploy.serving.pace import Interval, Pace, micro_batches
from deploy.serving.partition import push_records
from deploy.serving.partitions import Partitions
from deploy.serving.shadow import Shadow
from deploy.serving.tasks import Task, task_for
from deploy.serving.topics import TopicWatch, create_topics
from deploy.serving.webhook import Webhook
from deploy.settings.serve import ServeConfig
from model.card import Card
from pipeline import failpoint
from pipeline.formats.decoding import DESCRIBED
from pipeline.log import EventLog, Poll, Record
from pipeline.windows.grid import Counts
from tidecast.errors import ConsumerFenced, LogError, LogUnavailable, NotAuthorized

logger = logging.getLogger(__name__)

POLL_S = 0.2
REPORT_S = 10.0
ENDING_S = 5.0
"""Seconds that a service which is told to end waits for the end of a rebalance."""
MAX_STALLED = 3
"""Lag checks in a row, REPORT_S apart, that find a partition stalled before the service ends."""


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
        webhook: Webhook | None = None,
    ) -> None:
        """Create missing topics, fence a predecessor of the same instance, then join the group.

        `updater` provides new versions of the model; `shadow` predicts the same windows with another one;
        `webhook` posts alerts.
        """
        self._updater, self._shadow = updater, shadow
        self._predictor, self._task, self._config = predictor, task, config
        self._grading = Grading.of(predictor, config)
        self.stats = _stats(predictor, task, config, self._grading)
        self.stats.following = updater.following if updater else None
        self.stats.webhook = webhook.counts if webhook else None
        self.stats.shadow = shadow.counts if shadow else None
        self._health = OutputHealth()
        self._batch_s = self._ends_by = 0.0
        self._reported = 0
        self._described: set[int] = set()
        self._said: set[str] = set()
        self.watchdog, self._stall_detector = Watchdog(log.timeout_s), StallDetector(MAX_STALLED)
        state = create_topics(log, config, task.message_bytes)
        with self.watchdog.watch("fencing a predecessor"):
            checkpoints = log.producer(f"{config.group}-{config.instance}")
        producer = checkpoints if config.guarantee == "exactly-once" else log.producer()
        self._consumer = log.consumer(config.group, config.topic, instance=config.instance, static=config.static)
        self._topics = TopicWatch(log, config, task.message_bytes, state)
        family, watchdog, stats = Family.of(predictor), self.watchdog, self.stats
        self._checkpoints = Checkpoints(
            log, config, self._consumer, checkpoints, watchdog, self._topics, family, self._grading, stats
        )
        self._partitions = Partitions(
            log, config, self._consumer, watchdog, self._topics, family, self._checkpoints, self._grading
        )
        self._output = Output(producer, config, shadow, self._grading, webhook)
        self._commits = Commits(config, self._consumer, producer, self._output, self._partitions, watchdog, stats)
        self._pace = Pace(config.max_records, log.batch_s)

    @property
    def config(self) -> ServeConfig:
        """Its configuration, with every name filled in."""
        return self._config

    def run(self, stop: threading.Event) -> ServiceStats:
        """Serve until `stop` is set; then finish the current batch and write a last checkpoint.

        Errors are raised: the process ends, and its next start continues from the committed offsets.
        """
        try:
            self._run(stop)
        except LogError as error:
            if not (stop.is_set() and isinstance(error, ConsumerFenced)):
                with suppress(LogError):
                    self._commits.commit()  # what came before the failure is not to be forecast again
                with suppress(LogUnavailable, NotAuthorized):
                    self._topics.explain(error)
                raise
            logger.info("another member has taken over, and forecasts again what was not committed")
        self.watchdog.close()
        return self.stats

    def _run(self, stop: threading.Event) -> None:
        rebalancing = True
        report_interval = Interval(REPORT_S)
        while not (stop.is_set() and self._may_end(rebalancing)):
            poll = self._poll()
            rebalancing = poll.rebalancing
            self._rebalance(poll)
            self._update_models()
            if poll.records:
                self._process(poll.records)
            if not rebalancing:
                self._commits.commit_when_due(idle=not poll.records)
                self._checkpoints.step(self._partitions, self._commits.commit, self._batch_s)
            else:
                self._checkpoints.drop()  # nothing can be committed, and its transaction must not outlast its time
            self._report(caught_up=not poll.records, due=report_interval.due())
        if not rebalancing:
            self._commits.commit()
            self._checkpoints.finish(self._partitions)

    def _may_end(self, rebalancing: bool) -> bool:
        """Whether nothing waits for the end of a rebalance to be committed, or that takes too long."""
        self._ends_by = self._ends_by or time.monotonic() + ENDING_S
        return not (rebalancing and self._commits.pending) or time.monotonic() > self._ends_by

    def _update_models(self) -> None:
        """Switch to a new model and a new shadow, if there are any. The windows stay."""
        predictor = self._updater and self._updater.take()
        if predictor:
            self._predictor, self._task = predictor, task_for(predictor, self._config)
            self._health = OutputHealth()
            if self._grading and isinstance(predictor.card, Card):
                self._grading.serve(predictor.label, predictor.card)
            self.stats.set_model(predictor)
            self.stats.model_swaps += 1
            logger.info(f"now serving {predictor.label} on {predictor.device}")
        if self._shadow:
            self._shadow.update()

    def _poll(self) -> Poll:
        with self.watchdog.watch("poll"), self.stats.stage("poll"):
            busy = self._partitions.restoring or self._checkpoints.under_way
            poll = self._consumer.poll(0 if busy else POLL_S, self._pace.records)
        if poll.records:
            failpoint.reached("polled")
        return poll

    def _rebalance(self, poll: Poll) -> None:
        """Drop revoked partitions and restore assigned ones, a few between two polls."""
        partitions, stats = self._partitions, self.stats
        moved = bool(poll.assigned or poll.revoked)
        stats.rebalances += moved
        partitions.say_moves(poll)
        for partition in poll.revoked:
            partitions.revoke(partition)
            self._commits.forget(partition)
        partitions.assign(poll.assigned)
        stats.missing = partitions.missing if poll.joined else NOT_JOINED
        if moved or partitions.restoring:
            partitions.restore_next(self._task)
            stats.partitions, stats.series = partitions.sizes
        if not poll.rebalancing:
            partitions.start_new()
        stats.missing = partitions.missing if poll.joined else NOT_JOINED

    def _report(self, caught_up: bool, due: bool) -> None:
        """Log progress: when the service first catches up, and every REPORT_S in which records came."""
        if due:
            self._check_health()
        stats = self.stats
        if stats.records > self._reported and (due or (caught_up and not self._reported)):
            stats.partitions, stats.series = self._partitions.sizes
            prefix, delay = "caught up: " if caught_up else "", f"; {stats.delay_line()}" if due else ""
            logger.info(f"{prefix}{stats.counts_line()}{delay}")
            self._reported = stats.records

    def _check_health(self) -> None:
        """Detect what raises no error by itself: a stalled partition, a topic that was deleted or made anew."""
        self._partitions.check_topics()
        self._partitions.check_models()
        with self.watchdog.watch("end offsets"):
            self.stats.lag = self._consumer.lag()
        self._stall_detector.update(self._partitions.positions, self.stats.lag)

    def _process(self, polled: Mapping[int, Sequence[Record]]) -> None:
        """Steps 2 to 5, exactly once to 7, for one poll's records, one micro-batch after another."""
        began = time.monotonic()
        done: dict[int, list[Record]] = {}
        with self._pace.batch(sum(map(len, polled.values()))):
            self._commits.begin()
            for slices in micro_batches(polled, self._config.max_batch):
                with self.stats.stage("decode"):
                    batch = [self._push(partition, records) for partition, records in slices]
                failpoint.reached("extended")
                windows = sum(len(part.pending) for part in batch)
                if (slow := self._pace.is_slow(windows)) and done:
                    self._commits.add(done, at_once=True)
                    done = {}
                    self._commits.begin()
                with self._pace.inference(windows), self.stats.stage("predict"):
                    written = self._output.write(batch, self._predictor, self._task, slow=slow)
                self._count_batch(batch, written.predictions)
                self._check_outputs(written)
                for partition, records in slices:
                    done.setdefault(partition, []).extend(records)
            self._commits.add(done)
        self._batch_s = time.monotonic() - began

    def _push(self, partition: int, records: Sequence[Record]) -> PartitionBatch:
        assigned = self._partitions[partition]
        dropped = push_records(assigned.windower, self._task, records)
        self._say_how(partition, records)
        pending, graded = assigned.windower.take(), None
        if assigned.grades is not None:
            pending, graded = assigned.grades.take(pending)
        return PartitionBatch(partition, records, pending, dropped, graded)

    def _say_how(self, partition: int, records: Sequence[Record]) -> None:
        """Say from which fields events are read: of each partition's first records, and whatever is new."""
        first = () if partition in self._described else records[:DESCRIBED]
        self._described.add(partition)
        for note in self._task.describe(first):
            if note.text not in self._said:
                self._said.add(note.text)
                level = logging.INFO if note.kind == "read" else logging.WARNING
                logger.log(level, f"{self._config.topic}: {note.text}")

    def _count_batch(self, batch: Sequence[PartitionBatch], predictions: int) -> None:
        for part in batch:
            windower = self._partitions[part.partition].windower
            self.stats.add_counts(windower.counts)
            windower.counts = Counts()
            self.stats.dead_letters.update(error.reason for _, error in part.dropped.invalid)
        self.stats.produced += predictions
        self.stats.batch_sizes.observe_one(predictions)

    def _check_outputs(self, written: Written) -> None:
        """Count outputs that the model owes, and have it replaced if they are many."""
        problem = self._health.observe(len(written.pending), len(written.faults))
        if written.faults.not_finite and not self.stats.not_finite:
            logger.warning(f"{self._predictor.label}: an output is not finite; such forecasts are naive ones instead")
        self.stats.not_finite += len(written.faults.not_finite)
        if problem:
            logger.warning(f"{self._predictor.label}: {problem}")
            if self._updater:
                self._updater.complain(written.complaint(self._predictor, problem))


def _stats(predictor: Predictor, task: Task, config: ServeConfig, grading: Grading | None) -> ServiceStats:
    """A new service's."""
    about = {name: getattr(config, name) for name in ("topic", "output", "group", "instance")}
    stats = ServiceStats(task.output_kind, about)
    stats.set_model(predictor)
    if grading:
        stats.tally, stats.coverage = grading.live.tally, config.coverage
    return stats
