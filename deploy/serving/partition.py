"""An assigned partition: its records pushed into windows, and after a restart those since its checkpoint once more."""

import logging
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from deploy.grading.batch import replay
from deploy.grading.issued import IssuedForecasts, model_name, read_issued
from deploy.grading.state import Grading, PartitionGrades
from deploy.serving.monitoring.watchdog import Watchdog
from deploy.serving.tasks import Task, Windower
from deploy.settings.serve import ServeConfig
from pipeline import failpoint
from pipeline.formats.columnar.points import Points
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import decode_records
from pipeline.log import Bounds, Commit, EventLog, Record
from pipeline.state.records import encode_metadata
from pipeline.state.recovery import Recovered, Topics
from pipeline.windows.grid import Counts
from pipeline.windows.streaming import WindowStore
from tidecast.errors import NotAuthorized

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
    checkpoint: int | None = None
    """R: the offset of its last checkpoint; None before a new group's first one."""
    position: int = 0
    """X: the next offset to read."""
    parts: dict[str, int] = field(default_factory=dict)
    """The series whose states take several records, and how many."""
    lost: bool = False
    """Whether its checkpoint is no longer in the log."""
    grades: PartitionGrades | None = None
    """The grading of its series."""

    def commit(self) -> Commit:
        """X, with R in the metadata. There is always an R: the first checkpoint is written before the first record."""
        assert self.checkpoint is not None
        return Commit(self.position, encode_metadata(self.checkpoint))


def push_records(windower: Windower, task: Task, records: Sequence[Record]) -> DroppedRecords:
    """Add the events of some records to the windows.

    One invalid or late event drops its record, once; of a columnar record only its own row.
    """
    dropped = DroppedRecords()
    for run in task.decode_many(records):
        if run.series is not None and isinstance(windower, WindowStore):
            offsets = np.array([record.offset for record in run.records], np.int64)
            late, invalid = windower.push_many(run.series, run.ts, run.values, offsets)
            dropped.invalid.extend((run.records[row], error) for row, error in invalid)
            dropped.late.extend(map(run.records.__getitem__, late))
        else:
            _push_each(windower, task, run.records, dropped)
    return dropped


def _push_each(windower: Windower, task: Task, records: Sequence[Record], dropped: DroppedRecords) -> None:
    for record, events, error in decode_records(records, task.decode):
        if type(events) is Points and isinstance(windower, WindowStore):
            _push_points(windower, events, dropped)
            continue
        late = False
        for event in events:
            try:
                late |= not windower.push(event, record.offset)
            except InvalidEvent as invalid:
                error = error or invalid.with_traceback(None)  # a cycle, as when decoding
        if error is not None:
            dropped.invalid.append((record, error))
        elif late:
            dropped.late.append(record)


def _push_points(store: WindowStore, points: Points, dropped: DroppedRecords) -> None:
    """Add the points of a columnar record; each that is invalid or late is dropped as a record of its own."""
    offsets = np.full(len(points), points.record.offset)
    found = store.push_many(points.series, points.ts, points.values, offsets)
    dropped.invalid += [(points.row(row), error) for row, error in found.invalid]
    dropped.late += [points.row(row) for row in found.late]


@dataclass(frozen=True, slots=True)
class Replay:
    """Brings restored partitions from their checkpoints to their commits, without any output."""

    log: EventLog
    config: ServeConfig
    watchdog: Watchdog
    grading: Grading | None

    def run(
        self,
        task: Task,
        topics: Topics,
        partitions: Mapping[int, Partition],
        found: Mapping[int, Recovered],
        output_id: str,
    ) -> None:
        """Extend the windows by the input in between, and grade what was forecast of it."""
        ranges = {
            number: Bounds(max(each.replay_from, topics.bounds[number].start), each.position)
            for number, each in found.items()
            if each.replay_from is not None and each.position is not None
        }
        issued = self._issued(partitions, ranges, output_id)
        for records in self.log.read_partitions(self.config.topic, ranges):
            self.watchdog.progress()
            partition = partitions[records[0].partition]
            push_records(partition.windower, task, records)
            windows = partition.windower.take()
            if self.grading and partition.grades:
                _, part = partition.grades.take(windows)
                replay(self.grading, part, issued[records[0].partition])
        for partition in partitions.values():
            partition.windower.counts = Counts()
        failpoint.reached("replayed")

    def _issued(
        self, partitions: Mapping[int, Partition], ranges: Mapping[int, Bounds], output_id: str
    ) -> dict[int, IssuedForecasts]:
        """What was forecast of these ranges of the input, as the output topic has it."""
        issued: dict[int, IssuedForecasts] = {number: {} for number in ranges}
        if self.grading is None:
            return issued
        sections = {number: each.windower.sections for number, each in partitions.items()}
        starts = {number: self.grading.read_partition(each, output_id) for number, each in sections.items()}
        if not any(start < end for start, end in ranges.values()):
            return issued
        try:
            with self.watchdog.watch("forecasts since the checkpoints"):
                models = {model_name(label) for label in self.grading.models.values()}
                return read_issued(self.log, self.config, starts, ranges, self.grading.live.steps, models)
        except NotAuthorized as error:
            logger.warning(f"{error}: forecasts made since the last checkpoint can't be scored")
            return issued
