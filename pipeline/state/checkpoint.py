"""Checkpoints: a partition's windows in a compacted topic, from which a restart restores them (recovery.py).

The state topic has as many partitions as the input. A partition holds the state of each series (key ``s:`` and the
name), and one record about itself (key ``partition``); records.py defines their bytes. Either may have sections: state
that a component keeps there by name, in a format version of its own. A service that does not know a name keeps its
section unchanged.

A pass is one transaction, of one partition or several: the series that changed, the partition's record with the
position P up to which they include the input, and P as the group's offset with R = P in the commit's metadata. So a
pass is written as a whole or not at all, and that of a fenced member is not. Commits between passes have their own
offset X, and the R of the last pass.

A partition's record names the state topic it was written to: what a pass leaves in a topic that was made anew since the
pass before is a part of the state, and is refused by that.
"""

import contextlib
from collections.abc import Mapping
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
from tidecast.errors import LogError

STATE_TOPIC = "state-topic"
"""The section of a partition's record with the id of the topic that it was written to."""
PART_BYTES = 512 << 10
"""The largest value of a record, where the state topic takes such."""


class WindowState(Protocol):
    """The state of a windower, by series."""

    @property
    def config(self) -> WindowConfig | None:
        """The definition of its windows; None if it is stateless."""

    stream_time: int
    """The latest time of any of the partition's events, epoch milliseconds."""
    sections: Sections
    """Sections of the partition."""

    def dirty(self) -> list[str]:
        """The series that changed since the last `mark_clean`."""

    def mark_clean(self) -> None:
        """Count every series as unchanged."""

    def mark_dirty(self) -> None:
        """Count every series as changed."""

    def state(self, series: str) -> SeriesState | None:
        """A copy of a series' state; None for a series that has expired."""

    def restore(self, series: str, state: SeriesState) -> None:
        """Set the state of a series."""


class Pass(NamedTuple):
    """What a pass writes of one partition."""

    store: WindowState
    record: PartitionRecord
    parts: dict[str, int]
    """The series whose states take several records, and how many; updated by the pass."""


def part_bytes(max_message_bytes: int) -> int:
    """The largest value of a state's record for a topic with this limit of a batch, which has a header and a key."""
    return min(PART_BYTES, max_message_bytes - 1024)


def marked(record: PartitionRecord, state_topic_id: str) -> PartitionRecord:
    """The record with the id of the topic that it is written to."""
    sections = record.sections | {STATE_TOPIC: Section(1, state_topic_id.encode())}
    return msgspec.structs.replace(record, sections=sections)


def write_pass(
    producer: Producer,
    consumer: Consumer,
    state_topic: str,
    passes: Mapping[int, Pass],
    size: int = PART_BYTES,
) -> None:
    """Write what changed since the last pass and commit each `record.position`, as one transaction of `producer`.

    `size` limits a record's value, in bytes. To be called right after a commit and before the next poll. A failure
    aborts the transaction and is raised.
    """
    producer.begin()
    failpoint.reached("pass-begun")
    try:
        counts = {number: _send(producer, state_topic, number, each, size) for number, each in passes.items()}
        failpoint.reached("pass-sent")
        positions = {number: each.record.position for number, each in passes.items()}
        producer.commit({number: Commit(at, encode_metadata(at)) for number, at in positions.items()}, consumer)
    except BaseException:
        with contextlib.suppress(LogError):  # the first failure tells more; the next producer of this id aborts it
            producer.abort()
        raise
    failpoint.reached("pass-committed")
    for number, each in passes.items():
        each.store.mark_clean()
        for series, count in counts[number].items():
            each.parts.pop(series, None)
            if count > 1:
                each.parts[series] = count


def _send(producer: Producer, state_topic: str, partition: int, written: Pass, size: int) -> dict[str, int]:
    """Send one partition's states and record; how many records each changed series has now."""
    store, record, parts = written
    config, counts = config_hash(store.config), dict[str, int]()
    for series in store.dirty():
        state, name = store.state(series), series.encode()
        rows = [] if state is None else split(series, encode_series(config, series, state), size)
        if state is None:
            producer.send(state_topic, partition, SERIES_PREFIX + name, None)
        for key, value in rows:
            producer.send(state_topic, partition, key, value)
        for part in range(max(1, len(rows)), parts.get(series, 1)):
            producer.send(state_topic, partition, part_key(name, part), None)
        counts[series] = len(rows)
    producer.send(state_topic, partition, PARTITION_KEY, encode_partition(record))
    return counts
