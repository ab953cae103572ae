"""The partitions assigned to a consumer: restored with their windows, checkpointed, and revoked."""

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from deploy.grading.state import READABLE, Grading, PartitionGrades
from deploy.serving.checkpoints import Checkpoints
from deploy.serving.identity import Family
from deploy.serving.monitoring.watchdog import Watchdog
from deploy.serving.partition import Partition, Replay
from deploy.serving.tasks import Task
from deploy.serving.topics import TopicWatch
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.log import Bounds, Commit, Consumer, EventLog, Poll, Record
from pipeline.state import recovery
from pipeline.state.recovery import Recovered, Topics
from tidecast.errors import LogUnavailable

logger = logging.getLogger(__name__)

RESTORED_RECORDS = 100_000
"""Most records of state that are read for the partitions restored between two polls, unless one of them has more."""


def partitions_in_words(numbers: Iterable[int]) -> str:
    """Partitions as a text: partition 3, or partitions 0-3, 7."""
    ordered = sorted(numbers)
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    listed = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
    return f"partition{'s' * (len(ordered) != 1)} {listed}"


class Partitions:
    """All partitions assigned to a consumer.

    Errors are raised: the process ends, and its next start continues from the committed offsets.
    """

    def __init__(
        self,
        log: EventLog,
        config: ServeConfig,
        consumer: Consumer,
        watchdog: Watchdog,
        topics: TopicWatch,
        family: Family,
        checkpoints: Checkpoints,
        grading: Grading | None = None,
    ) -> None:
        self._log, self._config, self._consumer = log, config, consumer
        self._watchdog, self._topics = watchdog, topics
        self._family, self._alone, self._grading = family, False, grading
        self._checkpoints = checkpoints
        self._replay = Replay(log, config, watchdog, grading)
        self._restored: dict[int, Partition] = {}
        self._to_restore: deque[int] = deque()
        self._has_joined = False

    def __getitem__(self, partition: int) -> Partition:
        return self._restored[partition]

    @property
    def restoring(self) -> bool:
        """Whether some assigned partitions have not been restored yet."""
        return bool(self._to_restore)

    @property
    def missing(self) -> str:
        """What is not restored yet; empty if all is."""
        left = len(self._to_restore)
        return f"{left:,} of {left + len(self._restored):,} partitions are not restored yet" if left else ""

    @property
    def sizes(self) -> tuple[int, int]:
        """The partitions that are restored, and the series whose windows they hold."""
        windowers = [each.windower for each in self._restored.values()]
        return len(windowers), sum(map(len, windowers))

    @property
    def positions(self) -> dict[int, int]:
        """The next offset to read, by partition."""
        return {number: partition.position for number, partition in self._restored.items()}

    @property
    def checkpoint_lost(self) -> bool:
        """Whether a checkpoint is no longer in the log."""
        return any(partition.lost for partition in self._restored.values())

    def check_topics(self) -> None:
        """Notice a topic that was deleted or made anew. Raises UnknownTopic, StateMismatch for any but the state topic.

        What that one held is in memory: the next checkpoint, which is due at once, is a whole one.
        """
        if self._topics.has_lost_state():
            topic = self._config.state_topic
            logger.warning(f"{topic} was deleted or made anew: writing a whole checkpoint of the windows in memory")
            for partition in self._restored.values():
                partition.windower.mark_dirty()
                partition.parts.clear()
                partition.lost = True
            self._checkpoints.state_lost()

    def check_models(self) -> None:
        """Notice members that serve another model in this group, once. Raises StateMismatch."""
        if not self._alone:
            with suppress(LogUnavailable), self._watchdog.watch("others' checkpoints"):
                self._family.check_others(self._log, self._config, self._restored)
                self._alone = True

    def say_moves(self, poll: Poll) -> None:
        """Say which partitions went to others or came to this instance, and why."""
        instance, group = self._config.instance, self._config.group
        if poll.revoked:
            reason = "to share them with others of the group, or as they took this one for gone"
            logger.info(f"{instance} gives up {partitions_in_words(poll.revoked)}, {reason}")
        if poll.assigned:
            why = "another member left, or partitions are shared anew" if self._has_joined else f"it joined {group}"
            logger.info(f"{instance} takes over {partitions_in_words(poll.assigned)}: {why}")
            self._has_joined = True

    def assign(self, partitions: Iterable[int]) -> None:
        """Add newly assigned partitions, to be restored."""
        self._to_restore.extend(partitions)

    def restore_next(self, task: Task) -> None:
        """Restore assigned partitions, as many as take little time: their windows as of the committed offsets."""
        if not self._to_restore:
            return
        failpoint.reached("assigned")
        log, config = self._log, self._config
        with self._watchdog.watch("committed offsets"):
            committed = self._consumer.committed(self._to_restore)
        topics = Topics.look_up(log, config.topic, config.state_topic)
        restored = {number: self._empty(task) for number in self._next_few(topics)}
        windowers = {number: each.windower for number, each in restored.items()}
        readable = READABLE if self._grading else {}
        found = recovery.recover(log, topics, windowers, committed, config.on_data_loss, readable)
        for windower in windowers.values():
            self._family.check(windower.sections, config.group)
        failpoint.reached("restored")
        self._replay.run(task, topics, restored, found, self._topics.output_id)
        for number, recovered in found.items():
            self._add(number, restored[number], recovered, topics.bounds[number])

    def _empty(self, task: Task) -> Partition:
        """A partition to be restored."""
        grades = PartitionGrades(self._grading) if self._grading else None
        return Partition(task.windower(grades), grades=grades)

    def _next_few(self, topics: Topics) -> list[int]:
        """The next partitions to restore."""
        few, size = [self._to_restore.popleft()], 0
        size = topics.size(few[0])
        while self._to_restore and (size := size + topics.size(self._to_restore[0])) <= RESTORED_RECORDS:
            few.append(self._to_restore.popleft())
        return few

    def _add(self, number: int, partition: Partition, recovered: Recovered, bounds: Bounds) -> None:
        for note in recovered.notes:
            logger.warning(f"{self._config.topic}/{number}: {note}")
        partition.checkpoint, partition.parts = recovered.replay_from, recovered.parts
        if recovered.position is None:
            partition.position = bounds.start if self._config.start == "earliest" else bounds.end
        else:
            partition.position = recovered.position
            self._consumer.seek(number, recovered.position)
        self._restored[number] = partition

    def start_new(self) -> None:
        """Write the first checkpoint of partitions without one, and only then start reading them.

        So it is always known where a new group started.
        """
        new = [number for number, partition in self._restored.items() if partition.checkpoint is None]
        if new:
            self._say_start(new)
            self._checkpoints.write({number: self._restored[number] for number in new})
        for number in new:
            self._consumer.seek(number, self._restored[number].position)

    def _say_start(self, new: Sequence[int]) -> None:
        """Say where a new group starts, and how many records it is about to go through."""
        ends = self._log.bounds(self._config.topic)
        ahead = sum(ends[number].end - self._restored[number].position for number in new)
        logger.info(
            f"{self._config.topic}: new to {partitions_in_words(new)}, from the {self._config.start} record on: "
            f"{ahead:,} records are there"
        )

    def revoke(self, number: int) -> None:
        """Forget a partition, restored or not."""
        self._checkpoints.drop()
        if number in self._to_restore:
            self._to_restore.remove(number)
        revoked = self._restored.pop(number, None)
        if revoked is not None and revoked.grades is not None:
            revoked.grades.release()

    def advance(self, done: Mapping[int, Sequence[Record]]) -> None:
        """Move the positions past these records."""
        for number, records in done.items():
            self._restored[number].position = records[-1].offset + 1

    def commits(self, numbers: Iterable[int]) -> dict[int, Commit]:
        """What to commit for these partitions."""
        return {number: self._restored[number].commit() for number in numbers}

    def changed(self) -> dict[int, Partition]:
        """The partitions that have moved since their last checkpoints, or whose last one is lost."""
        self.check_topics()
        return {
            number: each for number, each in self._restored.items() if each.lost or each.position != each.checkpoint
        }
