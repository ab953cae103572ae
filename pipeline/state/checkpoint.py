"""Checkpoints: a partition's windows in a compacted topic, from which a restart restores them.

The state topic has as many partitions as the input. A partition holds the state of each series (key ``s:`` and the
name), and one record about itself (key ``partition``); records.py defines their bytes. Either may have sections: state
that a component keeps there by name, in a format version of its own. A service that does not know a name keeps its
section unchanged.

A pass is one transaction: the series that changed, the partition's record with the position P up to which they include
the input, and P as the group's offset with R = P in the commit's metadata. So a pass is written as a whole or not at
all, and that of a fenced member is not. Commits between passes have their own offset X, and the R of the last pass.

After a restart: `recover`, then replay [R, X) of the input into the store without output, then continue at X.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

from pipeline import failpoint
from pipeline.log import Commit, Consumer, EventLog, Producer
from pipeline.state.records import (
    PARTITION_KEY,
    SERIES_PREFIX,
    PartitionRecord,
    check_sections,
    config_hash,
    decode_metadata,
    decode_partition,
    decode_series,
    encode_metadata,
    encode_partition,
    encode_series,
)
from pipeline.windows.batch import Sections, SeriesState
from pipeline.windows.grid import WindowConfig
from pipeline.windows.reorder import BEFORE_ALL
from tidecast.errors import CorruptState, LogError, StateMismatch

OnDataLoss = Literal["fail", "earliest"]
"""What to do if records that are still needed are no longer in the log."""


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

    def state(self, series: str) -> SeriesState | None:
        """A copy of a series' state; None for a series that has expired."""

    def restore(self, series: str, state: SeriesState) -> None:
        """Set the state of a series."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The positions from which a partition, restored to R, continues."""

    replay_from: int | None
    """R, also for the metadata of commits; replay [R, position) into the store. None for a new group."""
    position: int | None
    """X, where to continue; None for a new group, which should write a pass as soon as it knows its start."""
    corrupt: int
    """Number of series that start empty because their records were corrupt."""
    notes: tuple[str, ...]
    """What the operator should know, a line each."""


def write_pass(
    producer: Producer,
    consumer: Consumer,
    state_topic: str,
    partition: int,
    store: WindowState,
    record: PartitionRecord,
) -> None:
    """Write what changed since the last pass and commit `record.position`, as one transaction of `producer`.

    To be called right after a commit and before the next poll. A failure aborts the transaction and is raised.
    """
    config = config_hash(store.config)
    producer.begin()
    failpoint.reached("pass-begun")
    try:
        for series in store.dirty():
            state = store.state(series)
            value = None if state is None else encode_series(config, series, state)
            producer.send(state_topic, partition, SERIES_PREFIX + series.encode(), value)
        producer.send(state_topic, partition, PARTITION_KEY, encode_partition(record))
        failpoint.reached("pass-sent")
        producer.commit({partition: Commit(record.position, encode_metadata(record.position))}, consumer)
    except BaseException:
        with contextlib.suppress(LogError):  # the first failure tells more; the next producer of this id aborts it
            producer.abort()
        raise
    failpoint.reached("pass-committed")
    store.mark_clean()


def recover(
    log: EventLog,
    topic: str,
    state_topic: str,
    partition: int,
    committed: Commit | None,
    store: WindowState,
    on_data_loss: OnDataLoss = "earliest",
    readable: Mapping[str, int] = MappingProxyType({}),
) -> Recovered:
    """Restore a partition's windows into an empty store, as its last pass wrote them.

    `committed` is the group's commit, looked up before. With `on_data_loss` "fail", records that are needed and no
    longer in the log raise. `readable` maps the names of sections that the caller reads to the latest version that
    it can; a service passes those of its components, none as long as it has none. Sections of other names are kept
    unchanged.

    Raises StateMismatch where the windows would not be those from before, and for a section of a later version.
    """
    bounds = log.bounds(topic)[partition]
    try:
        held = _newest(log, topic, state_topic, partition)
        if committed is None and not held:
            return Recovered(None, None, 0, ())
        record, damaged = _checked_record(log, topic, committed, held)
        position = record.position if committed is None else committed.offset
        if position > bounds.end:
            raise StateMismatch(f"the group was at {position} and {topic}/{partition} ends at {bounds.end}")
        corrupt = _fill(store, held, record, readable)
    except StateMismatch as mismatch:
        raise StateMismatch(
            f"state {state_topic}/{partition} does not match: {mismatch}. Use another group; or reset this one: "
            f"stop its members, then delete the topic {state_topic} and the group's offsets on {topic}"
        ) from None
    gone = _gone(record.position, position, bounds.start)
    if gone and on_data_loss == "fail":
        raise StateMismatch(f"{topic}/{partition}: {'; '.join(gone)}. --on-lost earliest continues without them")
    notes = (*damaged, *_notes(position, committed is None, corrupt), *gone)
    return Recovered(record.position, max(position, bounds.start), corrupt, notes)


def _newest(log: EventLog, topic: str, state_topic: str, partition: int) -> dict[bytes, bytes]:
    """The newest value of each key. The end counts open transactions, for whose end the reading waits."""
    bounds, partitions = log.bounds(state_topic), log.partitions(topic)
    if len(bounds) != partitions:
        raise StateMismatch(f"it has {len(bounds)} partitions, and {topic} has {partitions}")
    held: dict[bytes, bytes] = {}
    for records in log.read(state_topic, partition, *bounds[partition]):
        for record in records:
            key = record.key or b""
            if record.value is None:
                held.pop(key, None)
            else:
                held[key] = record.value
    return held


def _checked_record(
    log: EventLog, topic: str, committed: Commit | None, held: Mapping[bytes, bytes]
) -> tuple[PartitionRecord, list[str]]:
    """The partition's record, if it matches the commit, and notes on what was corrupt. Raises StateMismatch.

    Both contain R: if one is corrupt, R is taken from the other.
    """
    if PARTITION_KEY not in held:
        raise StateMismatch("the group has committed offsets, or states of series, without the partition's record")
    replay_from = None if committed is None else decode_metadata(committed.metadata)
    here = (log.partitions(topic), log.topic_id(topic))
    try:
        record = decode_partition(held[PARTITION_KEY])
    except CorruptState as error:
        if replay_from is None:
            raise StateMismatch(f"the partition's record is corrupt ({error})") from None
        rebuilt = PartitionRecord(position=replay_from, partitions=here[0], topic_id=here[1])
        return rebuilt, [f"the partition's record is corrupt ({error}): its position is taken from the commit"]
    if (record.partitions, record.topic_id) != here:
        raise StateMismatch(
            f"it belongs to another topic named {topic}, since deleted, or to another number of its partitions"
        )
    if committed is None or replay_from == record.position:
        return record, []
    if not _damaged(committed.metadata, encode_metadata(record.position)):
        raise StateMismatch(f"the group's offset {committed.offset} was not committed by its service")
    return record, ["the commit's metadata is corrupt: the checkpoint's position is taken from the partition's record"]


def _damaged(found: str, written: str) -> bool:
    """Whether a text is `written` with one or two characters changed."""
    return len(found) == len(written) and sum(a != b for a, b in zip(found, written, strict=True)) <= 2


def _fill(store: WindowState, held: Mapping[bytes, bytes], record: PartitionRecord, readable: Mapping[str, int]) -> int:
    """Restore the partition and its series; return how many were corrupt. Raises StateMismatch."""
    check_sections(record.sections, readable)
    hashed, corrupt, last_event_ts = config_hash(store.config), 0, BEFORE_ALL
    for key, value in held.items():
        if key == PARTITION_KEY:
            continue
        try:
            series, state = decode_series(hashed, key, value)
        except CorruptState:
            corrupt += 1
            continue
        check_sections(state.sections, readable)
        store.restore(series, state)
        last_event_ts = max(last_event_ts, state.last_event_ts)
    store.stream_time = last_event_ts if record.stream_time is None else record.stream_time
    store.sections = record.sections
    return corrupt


def _gone(replay_from: int, position: int, start: int) -> list[str]:
    """The offsets that are needed and no longer in the log, a line each."""
    gone = []
    if replay_from < min(start, position):
        lost = f"offsets {replay_from} to {min(start, position) - 1}"
        gone.append(f"{lost} are no longer in the log: the windows lack those events")
    if position < start:
        gone.append(f"offsets {position} to {start - 1} were deleted before they were read: no forecasts for them")
    return gone


def _notes(position: int, expired: bool, corrupt: int) -> list[str]:
    notes = []
    if expired:
        notes.append(
            f"the group's committed offset is missing (expired?): continuing from the last checkpoint, at {position}"
        )
    if corrupt:
        notes.append(f"{corrupt} series start with empty windows: their states are corrupt")
    return notes
