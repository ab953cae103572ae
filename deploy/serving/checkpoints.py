"""When and how a service writes its partitions' checkpoints: all at once, or a slice at a time between two batches.

At least once, a checkpoint has a producer of its own, so its transaction stays open while batches go on. Exactly once
the batches have the transactions of the same producer, and a checkpoint is written at once.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Protocol

from deploy.grading.state import Grading
from deploy.serving.identity import SECTION, Family
from deploy.serving.monitoring.stats import ServiceStats
from deploy.serving.monitoring.watchdog import Watchdog
from deploy.serving.pace import Interval
from deploy.serving.partition import Partition
from deploy.serving.topics import TopicWatch
from deploy.settings.serve import ServeConfig
from pipeline.log import Bounds, Consumer, EventLog, Producer
from pipeline.state import checkpoint
from pipeline.state.checkpoint import CheckpointPass, Pass
from pipeline.state.records import PartitionRecord

PASS_SERIES = 20_000
"""Most changed series in one transaction, unless one partition has more."""
SLICE_S = 0.002
"""Seconds of a slice between two batches."""
SHARE = 0.5
"""The same as a share of the time that the batch took, where that is longer."""


class Assigned(Protocol):
    """The partitions of a service."""

    @property
    def checkpoint_lost(self) -> bool:
        """Whether a checkpoint is no longer in the log."""
        ...

    def changed(self) -> Mapping[int, Partition]:
        """Those that have moved since their last checkpoints, or whose last one is lost."""
        ...


class Checkpoints:
    """Writes the checkpoints of some partitions, a few of them in each transaction.

    Errors are raised: the process ends, and its next start continues from the committed offsets.
    """

    def __init__(
        self,
        log: EventLog,
        config: ServeConfig,
        consumer: Consumer,
        producer: Producer,
        watchdog: Watchdog,
        topics: TopicWatch,
        family: Family,
        grading: Grading | None,
        stats: ServiceStats,
    ) -> None:
        """The transactional id of `producer` fences a predecessor of the same instance."""
        self._log, self._config, self._consumer, self._producer = log, config, consumer, producer
        self._watchdog, self._topics, self._family, self._grading = watchdog, topics, family, grading
        self._stats, self._interval, self._due = stats, Interval(config.checkpoint_s), False
        self._at_once, self._most_s = config.guarantee == "exactly-once", log.batch_s
        self._left: dict[int, Partition] = {}
        self._pass: CheckpointPass | None = None
        self._parts: dict[int, Partition] = {}
        """Those of the open transaction."""
        self._opened_at = 0.0

    @property
    def under_way(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._left or self._pass)

    def step(self, assigned: Assigned, commit: Callable[[], None], batch_s: float) -> None:
        """Begin a checkpoint when one is due, and go on with it: for a slice, or to its end if it takes too long.

        To be called between a batch, which took `batch_s`, and the next poll. `commit` commits what it has produced.
        """
        self._due |= self._interval.due() or self._stats.since_checkpoint >= self._config.checkpoint_records
        if assigned.checkpoint_lost or (self._due and not self.under_way):
            self._due = True
            self._stats.begin_checkpoint()
            self._begin(assigned.changed())
        at_once = self._at_once or (self._pass is not None and time.monotonic() - self._opened_at > self._most_s)
        seconds = math.inf if at_once else max(SLICE_S, SHARE * batch_s)
        with self._stats.stage("checkpoint") if self.under_way else nullcontext():
            while self.under_way and self._write(seconds):
                commit()
                self._commit()
                if not at_once:
                    break
        self._ended()

    def finish(self, assigned: Assigned) -> None:
        """Write a whole checkpoint. To be called after a commit."""
        self._due = True
        self._stats.begin_checkpoint()
        with self._stats.stage("checkpoint"):
            self.write(assigned.changed())
        self._ended()

    def write(self, partitions: Mapping[int, Partition]) -> None:
        """Write the checkpoints of these partitions at once, and nothing else. To be called after a commit."""
        self._begin(partitions)
        while self.under_way:
            self._write(math.inf)
            self._commit()

    def drop(self) -> None:
        """Give up what is under way, as after a partition of it was lost: another one begins soon."""
        self._left = {}
        if self._pass is not None:
            with self._watchdog.watch("aborting a checkpoint"):
                self._pass.abort()
            self._pass = None

    def state_lost(self) -> None:
        """Give up what is under way: the state topic is another one now."""
        self._left, self._pass = {}, None
        with self._watchdog.watch("connecting to a state topic made anew"):
            self._producer.renew()

    def _begin(self, partitions: Mapping[int, Partition]) -> None:
        self.drop()
        self._left = dict(partitions)

    def _ended(self) -> None:
        if self._due and not self.under_way:
            self._due = False
            self._stats.end_checkpoint()

    def _write(self, seconds: float) -> bool:
        """Go on for so long; whether the open transaction is complete."""
        with self._watchdog.watch("checkpoint"):
            if self._pass is None:
                self._parts = self._next_few()
                passes = self._passes(self._parts)
                self._pass = CheckpointPass(self._producer, self._config.state_topic, passes, self._topics.part_bytes)
                self._opened_at = time.monotonic()
            return self._pass.write(seconds)

    def _commit(self) -> None:
        assert self._pass is not None
        positions = {number: each.position for number, each in self._parts.items()}
        with self._watchdog.watch("checkpoint"):
            self._pass.commit(positions, self._consumer)
        for number, each in self._pass.passes.items():
            self._parts[number].checkpoint, self._parts[number].lost = each.record.position, False
        self._pass = None

    def _next_few(self) -> dict[int, Partition]:
        """The next partitions, as many as one transaction takes."""
        few, series = dict[int, Partition](), 0
        for number, partition in list(self._left.items()):
            series += partition.windower.dirty_count()
            if few and series > PASS_SERIES:
                break
            few[number] = self._left.pop(number)
        return few

    def _passes(self, partitions: Mapping[int, Partition]) -> dict[int, Pass]:
        ends: Mapping[int, Bounds] = {}
        if self._grading:
            with self._watchdog.watch("the end of the forecasts"):
                ends = self._log.bounds(self._config.output)
        return {number: self._of(number, partition, ends) for number, partition in partitions.items()}

    def _of(self, number: int, partition: Partition, ends: Mapping[int, Bounds]) -> Pass:
        sections = {**partition.windower.sections, SECTION: self._family.section}
        if self._grading:
            sections |= self._grading.partition_section(self._topics.output_id, ends[number].end)
        record = PartitionRecord(
            position=partition.position,
            partitions=self._topics.source.partitions,
            topic_id=self._topics.source.id,
            stream_time=partition.windower.stream_time,
            sections=sections,
        )
        return Pass(partition.windower, checkpoint.marked(record, self._topics.state_id), partition.parts)
