"""The partitions assigned to a consumer: restored with their windows, checkpointed, and revoked."""

import logging
from bisect import insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.serving.tasks import Task, Windower
from deploy.serving.watchdog import Watchdog
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import decode_records
from pipeline.log import Commit, Consumer, EventLog, Producer, Record
from pipeline.state import checkpoint
from pipeline.state.records import PartitionRecord, encode_metadata
from pipeline.windows.grid import Counts
from tidecast.errors import StateMismatch

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class DroppedRecords:
    """Records that are in no window: `invalid` ones with the error, and `late` ones."""

    invalid: list[tuple[Record, InvalidEvent]] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)

    def add_failed(self, record: Record, error: str) -> None:
        """Add, in its place, a record that completed a window for which inference failed; once, whatever it holds."""
        if all(other is not record for other, _ in self.invalid):
            failed = record, InvalidEvent("inference_failed", error)
            insort(self.invalid, failed, key=lambda dropped: dropped[0].offset)


@dataclass(slots=True)
class Partition:
    """An assigned input partition and its windows."""

    windower: Windower
    checkpoint: int | None
    """R: the offset of its last checkpoint; None before a new group's first one."""
    position: int
    """X: the next offset to read."""

    def commit(self) -> Commit:
        """X, with R in the metadata. There is always an R: the first checkpoint is written before the first record."""
        assert self.checkpoint is not None
        return Commit(self.position, encode_metadata(self.checkpoint))


def push_records(windower: Windower, task: Task, records: Iterable[Record]) -> DroppedRecords:
    """Add the events of some records to the windows. One invalid or late event drops its record, once."""
    dropped, push = DroppedRecords(), windower.push
    for record, events, error in decode_records(records, task.decode):
        late = False
        for event in events:
            try:
                late |= not push(event, record.offset)
            except InvalidEvent as invalid:
                error = error or invalid
        if error is not None:
            dropped.invalid.append((record, error))
        elif late:
            dropped.late.append(record)
    return dropped


class Partitions:
    """All partitions assigned to a consumer.

    Errors are raised: the process ends, and its next start continues from the committed offsets.
    """

    def __init__(
        self,
        log: EventLog,
        config: ServeConfig,
        consumer: Consumer,
        producer: Producer,
        watchdog: Watchdog,
    ) -> None:
        """`producer` writes checkpoints; its transactional id fences a predecessor of the same instance."""
        self._log, self._config, self._consumer, self._producer = log, config, consumer, producer
        self._watchdog = watchdog
        self._count, self._topic_id = log.partitions(config.topic), log.topic_id(config.topic)
        self._restored: dict[int, Partition] = {}
        self._to_restore: deque[int] = deque()

    def __getitem__(self, partition: int) -> Partition:
        return self._restored[partition]

    @property
    def restoring(self) -> bool:
        """Whether some assigned partitions have not been restored yet."""
        return bool(self._to_restore)

    @property
    def positions(self) -> dict[int, int]:
        """The next offset to read, by partition."""
        return {number: partition.position for number, partition in self._restored.items()}

    def check_topic(self) -> None:
        """Raises StateMismatch if the input topic was recreated or got more partitions."""
        topic = self._config.topic
        if (self._log.partitions(topic), self._log.topic_id(topic)) != (self._count, self._topic_id):
            raise StateMismatch(f"{topic} was recreated, or got more partitions, while this service was running")

    def assign(self, partitions: Iterable[int]) -> None:
        """Add newly assigned partitions, to be restored one by one."""
        self._to_restore.extend(partitions)

    def restore_next(self, task: Task) -> None:
        """Restore one assigned partition, if any is left: rebuild its windows as of its committed offset."""
        if self._to_restore:
            self._restore(self._to_restore.popleft(), task)

    def _restore(self, number: int, task: Task) -> None:
        failpoint.reached("assigned")
        log, config = self._log, self._config
        with self._watchdog.watch("committed offset"):
            committed = self._consumer.committed(number)
        windower = task.windower()
        recovery = checkpoint.recover(
            log, config.topic, config.state_topic, number, committed, windower, on_data_loss=config.on_data_loss
        )
        failpoint.reached("restored")
        for note in recovery.notes:
            logger.warning(f"{config.topic}/{number}: {note}")
        if recovery.position is None or recovery.replay_from is None:
            bounds = log.bounds(config.topic)[number]
            start = bounds.start if config.start == "earliest" else bounds.end
            self._restored[number] = Partition(windower, None, start)
            return
        for records in log.read(config.topic, number, recovery.replay_from, recovery.position):
            push_records(windower, task, records)
            windower.take()
        windower.counts = Counts()
        failpoint.reached("replayed")
        self._restored[number] = Partition(windower, recovery.replay_from, recovery.position)
        self._consumer.seek(number, recovery.position)

    def start_new(self) -> None:
        """Write the first checkpoint of partitions without one, and only then start reading them.

        So it is always known where a new group started.
        """
        for number, partition in self._restored.items():
            if partition.checkpoint is None:
                self.checkpoint([number])
                self._consumer.seek(number, partition.position)

    def revoke(self, number: int) -> None:
        """Forget a partition, restored or not."""
        if number in self._to_restore:
            self._to_restore.remove(number)
        self._restored.pop(number, None)

    def advance(self, polled: Mapping[int, Sequence[Record]]) -> dict[int, Commit]:
        """Move the positions past these records; what to commit for them."""
        for number, records in polled.items():
            self._restored[number].position = records[-1].offset + 1
        return {number: self._restored[number].commit() for number in polled}

    def checkpoint(self, partitions: Iterable[int] | None = None) -> None:
        """Write a checkpoint of each of these partitions, or of all, that has moved since its last one."""
        for number in list(self._restored if partitions is None else partitions):
            partition = self._restored[number]
            if partition.position == partition.checkpoint:
                continue
            record = PartitionRecord(
                position=partition.position,
                partitions=self._count,
                topic_id=self._topic_id,
                stream_time=partition.windower.stream_time,
                sections=dict(partition.windower.sections),
            )
            with self._watchdog.watch("checkpoint"):
                checkpoint.write_pass(
                    self._producer, self._consumer, self._config.state_topic, number, partition.windower, record
                )
            partition.checkpoint = partition.position
