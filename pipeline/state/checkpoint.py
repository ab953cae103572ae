"""Checkpoints: a partition's windows in a compacted topic, from which a restart restores them (recovery.py).

The state topic has as many partitions as the input. A partition holds the state of each series (key ``s:`` and the
name), and one record about itself (key ``partition``); records.py defines their bytes. Either may have sections: state
that a component keeps there by name, in a format version of its own. A service that does not know a name keeps its
section unchanged.

A pass is one transaction, of one partition or several: the series that changed, the partition's record with the
position P up to which they include the input, and the group's offset X >= P with R = P in the commit's metadata. So a
pass is written as a whole or not at all, and that of a fenced member is not. Commits between passes have their own
offset X, and the R of the last pass. The windows may go on while a pass is written: it has the states as of P.

A partition's record names the state topic it was written to: what a pass leaves in a topic that was made anew since the
pass before is a part of the state, and is refused by that.
"""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from pipeline import failpoint
from pipeline.log import Commit, Consumer, Producer
from pipeline.state.records import (
    PARTITION_KEY,
    SERIES_PREFIX,
    PartitionRecord,
    config_hash,
    encode_metadata,
    encode_partition,
    encode_series,
    part_key,
    split,
)
from pipeline.windows.batch import Section, Sections, SeriesState
from pipeline.windows.grid import WindowConfig
from pipeline.windows.snapshot import Snapshot
from tidecast.errors import LogError

STATE_TOPIC = "state-topic"
"""The section of a partition's record with the id of the topic that it was written to."""
PART_BYTES = 512 << 10
"""The largest value of a record, where the state topic takes such."""
AT_ONCE = 32
"""States that are copied and sent before the next look at the clock."""


class WindowState(Protocol):
    """The state of a windower, by series."""

    @property
    def config(self) -> WindowConfig | None:
        """The definition of its windows; None if it is stateless."""

    stream_time: int
    """The latest time of any of the partition's events, epoch milliseconds."""
    sections: Sections
    """Sections of the partition."""

    def dirty_count(self) -> int:
        """How many series changed since the last snapshot."""

    def snapshot(self) -> Snapshot:
        """The states of those, which count as unchanged from now on."""

    def mark_dirty(self, names: Iterable[str] | None = None) -> None:
        """Count these series, or every one, as changed."""

    def states(self, names: Sequence[str]) -> list[SeriesState | None]:
        """Copies of the states of series; None for one that has expired."""

    def restore(self, states: Mapping[str, SeriesState]) -> None:
        """Set the states of series."""


class Pass(NamedTuple):
    """What a pass writes of one partition."""

    store: WindowState
    record: PartitionRecord
    parts: dict[str, int]
    """The series whose states take several records, and how many; updated once the pass is committed."""


def part_bytes(max_message_bytes: int) -> int:
    """The largest value of a state's record for a topic with this limit of a batch, which has a header and a key."""
    return min(PART_BYTES, max_message_bytes - 1024)


def marked(record: PartitionRecord, state_topic_id: str) -> PartitionRecord:
    """The record with the id of the topic that it is written to."""
    sections = record.sections | {STATE_TOPIC: Section(1, state_topic_id.encode())}
    return msgspec.structs.replace(record, sections=sections)


class CheckpointPass:
    """A pass that is being written, in one transaction of `producer`: slice by slice, while the windows go on.

    What it writes are the states as they were when it began.
    """

    def __init__(
        self, producer: Producer, state_topic: str, passes: Mapping[int, Pass], size: int = PART_BYTES
    ) -> None:
        """Begin it: right after all records up to each `record.position` are in the windows, and none after it.

        `size` limits a record's value, in bytes.
        """
        self.passes = passes
        self._producer, self._state_topic, self._size = producer, state_topic, size
        producer.begin()
        failpoint.reached("pass-begun")
        self._snapshots = {number: each.store.snapshot() for number, each in passes.items()}
        self._configs = {number: config_hash(each.store.config) for number, each in passes.items()}
        self._counts: dict[int, dict[str, int]] = {number: {} for number in passes}

    def write(self, seconds: float = math.inf) -> bool:
        """Send states for so long, a few at least, or until all are sent: whether they are.

        A failure aborts the pass and is raised.
        """
        until = time.monotonic() + seconds
        with self._aborted_on_failure():
            for number, snapshot in self._snapshots.items():
                while snapshot:
                    for series, state in snapshot.take(AT_ONCE, self.passes[number].store.states):
                        self._send(number, series, state)
                    if time.monotonic() > until:
                        return not any(self._snapshots.values())
        return True

    def commit(self, offsets: Mapping[int, int], consumer: Consumer) -> None:
        """End it with the partitions' records, and commit `offsets`, by now perhaps later ones than the states have.

        To be called right after a commit and before the next poll. A failure aborts the pass and is raised.
        """
        with self._aborted_on_failure():
            for number, each in self.passes.items():
                self._producer.send(self._state_topic, number, PARTITION_KEY, encode_partition(each.record))
            failpoint.reached("pass-sent")
            commits = {
                number: Commit(offsets[number], encode_metadata(each.record.position))
                for number, each in self.passes.items()
            }
            self._producer.commit(commits, consumer)
        failpoint.reached("pass-committed")
        for number, each in self.passes.items():
            for series, count in self._counts[number].items():
                each.parts.pop(series, None)
                if count > 1:
                    each.parts[series] = count

    def abort(self) -> None:
        """Drop it: what it was to write counts as changed again."""
        for number, snapshot in self._snapshots.items():
            self.passes[number].store.mark_dirty(snapshot.names)
        with contextlib.suppress(LogError):  # the next producer of this id aborts it
            self._producer.abort()

    @contextlib.contextmanager
    def _aborted_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abort()
            raise

    def _send(self, partition: int, series: str, state: SeriesState | None) -> None:
        """Send a series' state, or tombstones, in as many records as it takes."""
        parts, config, name = self.passes[partition].parts, self._configs[partition], series.encode()
        rows = [] if state is None else split(series, encode_series(config, series, state), self._size)
        if state is None:
            self._producer.send(self._state_topic, partition, SERIES_PREFIX + name, None)
        for key, value in rows:
            self._producer.send(self._state_topic, partition, key, value)
        for part in range(max(1, len(rows)), parts.get(series, 1)):
            self._producer.send(self._state_topic, partition, part_key(name, part), None)
        self._counts[partition][series] = len(rows)
