"""The input partitions that a consumer owns: taken over with their windows, checkpointed, and given up."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.serving.tasks import Task, Windower
from deploy.serving.watchdog import Watchdog
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.formats.decoding import decode_records
from pipeline.formats.errors import InvalidEvent
from pipeline.log import Commit, Consumer, EventLog, Producer, Record
from pipeline.state import checkpoint
from pipeline.state.records import PartitionRecord, encode_metadata
from pipeline.windows.grid import Counts
from tidecast.errors import StateMismatch

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class UnusedRecords:
    """Records that were not used: `invalid` with why, and `late` ones."""

    invalid: list[tuple[Record, InvalidEvent]] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)


@dataclass(slots=True)
class Partition:
    """An input partition that this consumer owns."""

    windower: Windower
    checkpoint: int | None
    """R: where its last checkpoint stands; None before a new group's first."""
    position: int
    """X: the next offset to read."""

    def commit(self) -> Commit:
        """X, and R beside it. The first checkpoint comes before the first record, so there is one."""
        assert self.checkpoint is not None
        return Commit(self.position, encode_metadata(self.checkpoint))


def extend(windower: Windower, task: Task, records: Iterable[Record]) -> UnusedRecords:
    """Extend windows by the events of some records. An invalid or late one of them makes its whole record so, once."""
    unused, push = UnusedRecords(), windower.push
    for record, events, error in decode_records(records, task.decode):
        late = False
        for event in events:
            try:
                late |= not push(event, record.offset)
            except InvalidEvent as invalid:
                error = error or invalid
        if error is not None:
            unused.invalid.append((record, error))
        elif late:
            unused.late.append(record)
    return unused


class Partitions:
    """All that a consumer owns. What fails is raised: the process ends, and its next start goes on at the commit."""

    def __init__(
        self,
        log: EventLog,
        config: ServeConfig,
        consumer: Consumer,
        producer: Producer,
        watched: Watchdog,
    ) -> None:
        """`producer` writes checkpoints; its transactional id fences a predecessor of the same instance."""
        self._log, self._config, self._consumer, self._producer = log, config, consumer, producer
        self._watched = watched
        self._count, self._topic_id = log.partitions(config.topic), log.topic_id(config.topic)
        self._owned: dict[int, Partition] = {}
        self._waiting: deque[int] = deque()

    def __getitem__(self, partition: int) -> Partition:
        return self._owned[partition]

    def __iter__(self) -> Iterator[int]:
        return iter(self._owned)

    @property
    def waiting(self) -> bool:
        """Whether there are partitions that are assigned and not taken over yet."""
        return bool(self._waiting)

    @property
    def positions(self) -> dict[int, int]:
        """The next offset to read of each."""
        return {partition: owned.position for partition, owned in self._owned.items()}

    def check_topic(self) -> None:
        """Raises StateMismatch if the input is not the topic that it was."""
        topic = self._config.topic
        if (self._log.partitions(topic), self._log.topic_id(topic)) != (self._count, self._topic_id):
            raise StateMismatch(f"{topic} was made anew, or has more partitions, since this service began")

    def assign(self, partitions: Iterable[int]) -> None:
        """Note what was assigned."""
        self._waiting.extend(partitions)

    def take_over_next(self, task: Task) -> None:
        """Take over one of those that wait, if any do: rebuild its windows as they were at its committed offset."""
        if self._waiting:
            self._take_over(self._waiting.popleft(), task)

    def _take_over(self, partition: int, task: Task) -> None:
        failpoint.reached("assigned")
        log, config = self._log, self._config
        with self._watched("committed offset"):
            committed = self._consumer.committed(partition)
        windower = task.windower()
        found = checkpoint.recover(
            log, config.topic, config.state_topic, partition, committed, windower, lost=config.lost
        )
        failpoint.reached("restored")
        for note in found.notes:
            logger.warning(f"{config.topic}/{partition}: {note}")
        if found.position is None or found.replay_from is None:
            bounds = log.bounds(config.topic)[partition]
            start = bounds.start if config.start == "earliest" else bounds.end
            self._owned[partition] = Partition(windower, None, start)
            return
        for records in log.read(config.topic, partition, found.replay_from, found.position):
            extend(windower, task, records)
            windower.take()
        windower.counts = Counts()
        failpoint.reached("replayed")
        self._owned[partition] = Partition(windower, found.replay_from, found.position)
        self._consumer.seek(partition, found.position)

    def start_new(self) -> None:
        """Write the first checkpoint of those that have none, and only then read their first record.

        So where a new group began is never forgotten.
        """
        for partition, owned in self._owned.items():
            if owned.checkpoint is None:
                self.checkpoint([partition])
                self._consumer.seek(partition, owned.position)

    def drop(self, partition: int) -> None:
        """Forget a partition, taken over or still waiting to be."""
        if partition in self._waiting:
            self._waiting.remove(partition)
        self._owned.pop(partition, None)

    def advance(self, polled: Mapping[int, Sequence[Record]]) -> dict[int, Commit]:
        """Count these records as done; what to commit for them."""
        for partition, records in polled.items():
            self._owned[partition].position = records[-1].offset + 1
        return {partition: self._owned[partition].commit() for partition in polled}

    def checkpoint(self, partitions: Iterable[int] | None = None) -> None:
        """Write a pass for each of these partitions, or of all, that has moved since its last one."""
        for partition in list(self._owned if partitions is None else partitions):
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
                    self._producer, self._consumer, self._config.state_topic, partition, owned.windower, record
                )
            owned.checkpoint = owned.position
