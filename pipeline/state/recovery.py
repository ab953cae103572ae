"""Recovery: partitions' windows as their last checkpoint wrote them, and the positions from which they continue.

After a restart: `recover`, then replay [R, X) of the input into the stores without output, then continue at X.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from pipeline.log import Bounds, Commit, EventLog
from pipeline.state.checkpoint import STATE_TOPIC, WindowState
from pipeline.state.records import (
    PART_PREFIX,
    PARTITION_KEY,
    PartitionRecord,
    check_sections,
    config_hash,
    decode_metadata,
    decode_partition,
    decode_series,
    encode_metadata,
    joined,
)
from pipeline.windows.batch import SeriesState
from pipeline.windows.choices import OnDataLoss
from pipeline.windows.grid import WindowConfig
from pipeline.windows.reorder import BEFORE_ALL
from tidecast.errors import CorruptState, StateMismatch

AT_ONCE = 256
"""So many series are restored together."""


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
    gone: tuple[str, ...] = ()
    """Which of the notes say that needed records are no longer in the log."""
    parts: dict[str, int] = field(default_factory=dict)
    """The series whose states take several records, and how many."""


@dataclass(frozen=True, slots=True)
class Topics:
    """A group's input and state topic, as they are now; looked up once for all partitions."""

    topic: str
    topic_id: str
    bounds: Mapping[int, Bounds]
    state_topic: str
    state_topic_id: str
    state_bounds: Mapping[int, Bounds]

    @classmethod
    def look_up(cls, log: EventLog, topic: str, state_topic: str) -> "Topics":
        """Look both up. To be called after the partitions' assignment and the look-up of their commits: ends count open
        transactions, and so what a former owner wrote. Raises UnknownTopic.
        """
        topic_id, state_topic_id = log.topic_id(topic), log.topic_id(state_topic)
        return cls(topic, topic_id, log.bounds(topic), state_topic, state_topic_id, log.bounds(state_topic))

    def size(self, partition: int) -> int:
        """How many records a partition's recovery reads of the state topic, at most."""
        start, end = self.state_bounds.get(partition, (0, 0))
        return end - start


def recover(
    log: EventLog,
    topics: Topics,
    stores: Mapping[int, WindowState],
    committed: Mapping[int, Commit],
    on_data_loss: OnDataLoss = "earliest",
    readable: Mapping[str, int] = MappingProxyType({}),
) -> dict[int, Recovered]:
    """Restore partitions' windows into empty stores, as their last passes wrote them.

    `committed` are the group's commits, looked up before. With `on_data_loss` "fail", records that are needed and no
    longer in the log raise. `readable` maps the names of sections that the caller reads to the latest version that
    it can; a service passes those of its components, none as long as it has none. Sections of other names are kept
    unchanged.

    Raises StateMismatch where the windows would not be those from before, and for a section of a later version.
    """
    held = _newest(log, topics, stores)
    recovered = {}
    for number, store in stores.items():
        try:
            recovered[number] = _recovered(topics, number, store, committed.get(number), held.pop(number), readable)
        except StateMismatch as mismatch:
            raise StateMismatch(
                f"state {topics.state_topic}/{number} does not match: {mismatch}. Use another group; or reset this "
                f"one: stop its members, then delete the topic {topics.state_topic} and the group's offsets on "
                f"{topics.topic}"
            ) from None
        if on_data_loss == "fail" and (gone := recovered[number].gone):
            lost = f"{topics.topic}/{number}: {'; '.join(gone)}"
            raise StateMismatch(f"{lost}. --on-lost earliest continues without them")
    return recovered


def _newest(log: EventLog, topics: Topics, partitions: Mapping[int, object]) -> dict[int, dict[bytes, bytes]]:
    """The newest value of each key, by partition. Waits for the end of transactions that are open."""
    held: dict[int, dict[bytes, bytes]] = {number: {} for number in partitions}
    wanted = {number: topics.state_bounds[number] for number in partitions if number in topics.state_bounds}
    for records in log.read_partitions(topics.state_topic, wanted, whole=True):
        newest = held[records[0].partition]
        for record in records:
            key = record.key or b""
            if record.value is None:
                newest.pop(key, None)
            else:
                newest[key] = record.value
    return held


def _recovered(
    topics: Topics,
    number: int,
    store: WindowState,
    committed: Commit | None,
    held: Mapping[bytes, bytes],
    readable: Mapping[str, int],
) -> Recovered:
    """Restore one partition from its newest records. Raises StateMismatch."""
    if len(topics.state_bounds) != len(topics.bounds):
        raise StateMismatch(
            f"it has {len(topics.state_bounds)} partitions, and {topics.topic} has {len(topics.bounds)}"
        )
    if committed is None and not held:
        return Recovered(None, None, 0, ())
    record, damaged = _checked_record(topics, committed, held)
    position, bounds = record.position if committed is None else committed.offset, topics.bounds[number]
    if position > bounds.end:
        raise StateMismatch(f"the group was at {position} and {topics.topic}/{number} ends at {bounds.end}")
    corrupt, parts = _fill(store, held, record, readable)
    gone = _gone(record.position, position, bounds.start)
    notes = (*damaged, *_notes(position, committed is None, corrupt), *gone)
    return Recovered(record.position, max(position, bounds.start), corrupt, notes, tuple(gone), parts)


def _checked_record(
    topics: Topics, committed: Commit | None, held: Mapping[bytes, bytes]
) -> tuple[PartitionRecord, list[str]]:
    """The partition's record, if it matches the commit, and notes on what was corrupt. Raises StateMismatch.

    Both contain R: if one is corrupt, R is taken from the other.
    """
    if PARTITION_KEY not in held:
        raise StateMismatch("the group has committed offsets, or states of series, without the partition's record")
    replay_from = None if committed is None else decode_metadata(committed.metadata)
    here = (len(topics.bounds), topics.topic_id)
    try:
        record = decode_partition(held[PARTITION_KEY])
    except CorruptState as error:
        if replay_from is None:
            raise StateMismatch(f"the partition's record is corrupt ({error})") from None
        rebuilt = PartitionRecord(position=replay_from, partitions=here[0], topic_id=here[1])
        return rebuilt, [f"the partition's record is corrupt ({error}): its position is taken from the commit"]
    if (record.partitions, record.topic_id) != here:
        raise StateMismatch(
            f"it belongs to another topic named {topics.topic}, since deleted, or to another number of its partitions"
        )
    written_to = record.sections.get(STATE_TOPIC)
    if written_to is not None and written_to.data != topics.state_topic_id.encode():
        raise StateMismatch("it is a part only: the topic was made anew, and no whole checkpoint was written since")
    if committed is None or replay_from == record.position:
        return record, []
    if not _damaged(committed.metadata, encode_metadata(record.position)):
        raise StateMismatch(f"the group's offset {committed.offset} was not committed by its service")
    return record, ["the commit's metadata is corrupt: the checkpoint's position is taken from the partition's record"]


def _damaged(found: str, written: str) -> bool:
    """Whether a text is `written` with one or two characters changed."""
    return len(found) == len(written) and sum(a != b for a, b in zip(found, written, strict=True)) <= 2


def _fill(
    store: WindowState, held: Mapping[bytes, bytes], record: PartitionRecord, readable: Mapping[str, int]
) -> tuple[int, dict[str, int]]:
    """Restore a partition; how many of its series were corrupt, and those of several records. Raises StateMismatch."""
    check_sections(record.sections, readable)
    last_event_ts, corrupt, parts = BEFORE_ALL, 0, dict[str, int]()
    keys = [key for key in held if key != PARTITION_KEY and not key.startswith(PART_PREFIX)]
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        states = _decoded(store.config, some, held, parts)
        for state in states.values():
            check_sections(state.sections, readable)
            last_event_ts = max(last_event_ts, state.last_event_ts)
        store.restore(states)
        corrupt += len(some) - len(states)
    store.stream_time = last_event_ts if record.stream_time is None else record.stream_time
    store.sections = {name: section for name, section in record.sections.items() if name != STATE_TOPIC}
    return corrupt, parts


def _decoded(
    config: WindowConfig | None, keys: Sequence[bytes], held: Mapping[bytes, bytes], parts: dict[str, int]
) -> dict[str, SeriesState]:
    """The states at keys that are not corrupt, by series; those of several records are added to `parts`."""
    hashed, states = config_hash(config), dict[str, SeriesState]()
    for key in keys:
        try:
            data, count = joined(key, held)
            series, state = decode_series(hashed, key, data)
        except CorruptState:
            continue
        states[series] = state
        if count > 1:
            parts[series] = count
    return states


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
