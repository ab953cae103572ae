"""Checkpoints: states as bytes, passes, and recovery after an end at any point."""

import contextlib
import itertools
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passes import write_pass
from properties import examples
from waiting import until

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Event
from pipeline.log import Commit, Consumer, EventLog, Producer, Record
from pipeline.log.connect import connect
from pipeline.state import checkpoint, records, recovery
from pipeline.state.checkpoint import Pass
from pipeline.state.records import PartitionRecord
from pipeline.state.recovery import Recovered, Topics
from pipeline.windows.batch import Section, SeriesState, Windows
from pipeline.windows.grid import WindowConfig
from pipeline.windows.streaming import WindowStore
from tidecast.errors import ConsumerFenced, LogError, StateMismatch

Fresh = Callable[[str], str]
Step = tuple[str, int]
START = 1_700_000_040_000
CONFIG = WindowConfig(seq_len=4, freq="1m")
STEPS = [("a", 0), ("b", 0), ("a", 1), ("a", 3), ("b", 9), ("a", 2), ("a", 4), ("b", 10), ("a", 5), ("a", 6)]
HASH = records.config_hash(CONFIG)
SECTIONS = {"scores": Section(3, b"\x00\xff"), "intervals": Section(1, b"")}
names = itertools.count()


def recover(
    log: EventLog,
    topic: str,
    state_topic: str,
    committed: Commit | None,
    store: WindowStore,
    readable: Mapping[str, int] | None = None,
) -> Recovered:
    """Recover the windows of partition 0."""
    topics, commits = Topics.look_up(log, topic, state_topic), {} if committed is None else {0: committed}
    return recovery.recover(log, topics, {0: store}, commits, readable=readable or {})[0]


class Group:
    """A group's one member on a topic with one partition, doing what a service does but forecast."""

    def __init__(
        self, log: EventLog, topic: str, group: str, config: WindowConfig = CONFIG, size: int = checkpoint.PART_BYTES
    ) -> None:
        self.log, self.topic, self.group, self.config, self.size = log, topic, group, config, size
        self.state_topic = f"{group}-state"
        self.partitions = log.partitions(topic)
        log.create_topic(self.state_topic, self.partitions, compacted=True)

    def start(self) -> Recovered:
        """Join, take over partition 0 and replay."""
        self.producer: Producer = self.log.producer(self.group)
        self.consumer: Consumer = self.log.consumer(self.group, self.topic)
        until(lambda: 0 in self.consumer.poll(0.5, 100).assigned)
        committed, store = self.consumer.committed([0]).get(0), WindowStore(self.config)
        recovered = recover(self.log, self.topic, self.state_topic, committed, store)
        self.store, self.position, self.parts = store, recovered.position or 0, recovered.parts
        self.passed = recovered.replay_from or 0
        for batch in self.log.read(self.topic, 0, self.passed, self.position):
            self._push(batch)
        self.consumer.seek(0, self.position)
        return recovered

    def _push(self, records: Sequence[Record]) -> Windows:
        for record in records:
            with contextlib.suppress(InvalidEvent):
                self.store.push(event(record))
        return self.store.take()

    def poll(self, count: int) -> Windows:
        """Take up to `count` records, as far as there are any, into the windows."""
        wanted = min(count, self.log.bounds(self.topic)[0].end - self.position)
        taken: list[Record] = []

        def take() -> None:
            taken.extend(self.consumer.poll(0.5, wanted - len(taken)).records.get(0, ()))

        until(lambda: len(taken) >= wanted, meanwhile=take)
        self.position += len(taken)
        return self._push(taken)

    def commit(self) -> None:
        self.consumer.commit({0: Commit(self.position, records.encode_metadata(self.passed))})

    def write_pass(self) -> None:
        record = PartitionRecord(
            position=self.position,
            partitions=self.partitions,
            topic_id=self.log.topic_id(self.topic),
            stream_time=self.store.stream_time,
            sections=dict(self.store.sections),
        )
        marked = checkpoint.marked(record, self.log.topic_id(self.state_topic))
        passes = {0: Pass(self.store, marked, self.parts)}
        write_pass(self.producer, self.consumer, self.state_topic, passes, self.size)
        self.passed = self.position

    def end(self) -> None:
        """As a process that ends: whatever is open is left open, but for the membership."""
        self.producer.close()
        self.consumer.close()


def event(record: Record) -> Event:
    name, _, minute = (record.value or b"").partition(b" ")
    return Event(name.decode(), START + int(minute) * 60_000, (int(minute) / 3,))


def write(log: EventLog, topic: str, partition: int, rows: Sequence[tuple[bytes | None, bytes | None]]) -> None:
    with contextlib.closing(log.producer()) as producer:
        for key, value in rows:
            producer.send(topic, partition, key, value)
        producer.flush()


def write_steps(log: EventLog, topic: str, steps: Sequence[Step]) -> None:
    write(log, topic, 0, [(None, f"{name} {minute}".encode()) for name, minute in steps])


def contents(store: WindowStore) -> Mapping[str, bytes]:
    return {name: records.encode_series(b"", name, state_of(store, name)) for name in store}


def state_of(store: WindowStore, series: str) -> SeriesState:
    state = store.state(series)
    assert state
    return state


def uninterrupted(steps: Sequence[Step], config: WindowConfig) -> WindowStore:
    store = WindowStore(config)
    for name, minute in steps:
        with contextlib.suppress(InvalidEvent):
            store.push(Event(name, START + minute * 60_000, (minute / 3,)))
    return store


@pytest.fixture
def group(log: EventLog, fresh: Fresh) -> Group:
    """On a topic that holds STEPS."""
    topic = fresh("input")
    log.create_topic(topic, 1)
    write_steps(log, topic, STEPS)
    return Group(log, topic, fresh("group"))


@pytest.fixture(scope="module")
def local_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log.db"


@pytest.fixture(scope="module")
def local(local_path: Path) -> Iterator[EventLog]:
    with contextlib.closing(connect(f"sqlite:{local_path}")) as log:
        yield log


@pytest.fixture
def stopped(local: EventLog) -> Group:
    """A group on the embedded log that has passed at 4, committed at 7 and ended."""
    topic = f"input-{next(names)}"
    local.create_topic(topic, 1)
    write_steps(local, topic, STEPS)
    group = Group(local, topic, f"group-{next(names)}")
    group.start()
    group.poll(4)
    group.write_pass()
    group.poll(3)
    group.commit()
    group.end()
    return group


def test_a_restart_restores_the_windows(group: Group) -> None:
    new = group.start()
    assert (new.position, new.replay_from, new.corrupt, new.notes) == (None, None, 0, ())
    group.write_pass()
    group.poll(4)
    group.write_pass()
    group.poll(3)
    group.commit()
    group.poll(2)
    group.end()

    recovered = group.start()
    assert (recovered.replay_from, recovered.position, recovered.corrupt, recovered.notes) == (4, 7, 0, ())
    assert contents(group.store) == contents(uninterrupted(STEPS[:7], CONFIG))
    assert group.store.dirty() == ["b", "a"]
    assert group.poll(100).ts.tolist() == [START + 5 * 60_000, START + 6 * 60_000]
    assert contents(group.store) == contents(uninterrupted(STEPS, CONFIG))


def test_a_failed_pass_writes_nothing(group: Group) -> None:
    group.start()
    group.poll(4)
    group.write_pass()
    group.poll(3)
    successor = group.log.producer(group.group)
    with pytest.raises(ConsumerFenced):
        group.write_pass()
    assert group.store.dirty() == ["b", "a"]
    successor.close()
    group.end()
    recovered = group.start()
    assert (recovered.replay_from, recovered.position) == (4, 4)
    assert contents(group.store) == contents(uninterrupted(STEPS[:4], CONFIG))


def test_a_pass_writes_what_changed(local: EventLog, stopped: Group) -> None:
    start = local.bounds(stopped.state_topic)[0].end
    stopped.start()
    stopped.store.snapshot()
    stopped.poll(1)
    stopped.write_pass()
    end = local.bounds(stopped.state_topic)[0].end
    written = [record.key for batch in local.read(stopped.state_topic, 0, start, end) for record in batch]
    assert written == [b"s:b", b"partition"]
    stopped.end()


def test_an_aborted_pass_can_be_retried(stopped: Group) -> None:
    stopped.start()
    changed = stopped.store.dirty()
    passes = {0: Pass(stopped.store, PartitionRecord(position=7, partitions=1, topic_id=""), {})}
    with pytest.raises(LogError):
        write_pass(stopped.producer, stopped.consumer, "no-such-topic", passes)
    assert stopped.store.dirty() == changed
    stopped.write_pass()
    assert stopped.store.dirty() == []
    stopped.end()


EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([1, 1, 1, 2, 3, 6, 0, -1]), st.integers(1, 12)),
    min_size=1,
    max_size=12,
)
ACTIONS = st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["commit", "pass", "nothing"])), max_size=10)


@given(
    EVENTS, ACTIONS, st.sampled_from([CONFIG, WindowConfig(seq_len=3), WindowConfig(seq_len=9, freq="2m", max_gap=1)])
)
@settings(max_examples=examples(40))
def test_recovery_gives_the_windows_at_the_last_commit(
    local: EventLog, legs: list[tuple[str, int, int]], actions: list[tuple[int, str]], config: WindowConfig
) -> None:
    steps = _steps(legs)
    topic = f"input-{next(names)}"
    local.create_topic(topic, 1)
    write_steps(local, topic, steps)
    group = Group(local, topic, f"group-{next(names)}", config)
    group.start()
    group.write_pass()
    committed = 0
    for count, action in actions:
        group.poll(count)
        if action == "commit":
            group.commit()
        elif action == "pass":
            group.write_pass()
        committed = committed if action == "nothing" else group.position
    group.end()

    recovered = group.start()
    assert recovered.position == committed
    assert contents(group.store) == contents(uninterrupted(steps[:committed], config))
    group.poll(len(steps))
    assert contents(group.store) == contents(uninterrupted(steps, config))
    group.end()


STORES: list[Callable[[], WindowStore]] = [
    lambda: WindowStore(CONFIG),
    lambda: WindowStore(WindowConfig(seq_len=3), idle=8 * 60_000),
    lambda: WindowStore(WindowConfig(seq_len=3, freq="1m", lateness=120_000, aggregate="mean"), idle=8 * 60_000),
]


@given(st.sampled_from(STORES), EVENTS, EVENTS, st.lists(st.integers(0, 5)))
def test_a_snapshot_has_the_states_of_its_moment_while_the_windows_go_on(
    new: Callable[[], WindowStore],
    before: list[tuple[str, int, int]],
    after: list[tuple[str, int, int]],
    reads: list[int],
) -> None:
    def push(store: WindowStore, step: Step) -> None:
        name, minute = step
        with contextlib.suppress(InvalidEvent):
            store.push(Event(name, START + minute * 60_000, (minute / 3,)))

    store = new()
    for step in _steps(before):
        push(store, step)
    names = store.dirty()
    assert store.dirty_count() == len(names)
    expected = {name: None if (state := store.state(name)) is None else written(name, state) for name in names}
    snapshot, found = store.snapshot(), dict[str, bytes | None]()
    assert len(snapshot) == len(names)
    assert (store.dirty(), store.dirty_count()) == ([], 0)

    def read(most: int) -> None:
        taken = snapshot.take(most, store.states)
        assert len(taken) <= most
        for name, state in taken:
            assert name not in found
            found[name] = None if state is None else written(name, state)

    for number, step in enumerate(_steps([*before, *after])[len(_steps(before)) :]):
        if number < len(reads):
            read(reads[number])
        push(store, step)
    while snapshot:
        read(2)
    assert found == expected


def written(name: str, state: SeriesState) -> bytes:
    return records.encode_series(b"", name, state)


def test_a_pass_in_slices_has_its_moment_and_commits_a_later_offset(group: Group) -> None:
    write_steps(group.log, group.topic, STEPS)
    group.start()
    group.poll(6)
    at, expected = group.position, contents(group.store)
    record = PartitionRecord(
        position=at,
        partitions=group.partitions,
        topic_id=group.log.topic_id(group.topic),
        stream_time=group.store.stream_time,
    )
    marked = checkpoint.marked(record, group.log.topic_id(group.state_topic))
    sliced = checkpoint.CheckpointPass(group.producer, group.state_topic, {0: Pass(group.store, marked, group.parts)})
    with patch("pipeline.state.checkpoint.AT_ONCE", 1):
        assert not sliced.write(0)
    group.poll(2)
    assert sliced.write()
    sliced.commit({0: group.position}, group.consumer)
    group.end()
    recovered, store = group.start(), WindowStore(CONFIG)
    assert (recovered.replay_from, recovered.position) == (at, at + 2)
    recover(group.log, group.topic, group.state_topic, group.consumer.committed([0])[0], store)
    assert contents(store) == expected
    assert contents(group.store) == contents(uninterrupted(STEPS[: at + 2], CONFIG))
    group.end()


def _steps(legs: Sequence[tuple[str, int, int]]) -> list[Step]:
    at = dict.fromkeys("abc", 0)
    steps = []
    for name, stride, count in legs:
        for _ in range(count):
            at[name] += stride
            steps.append((name, at[name]))
    return steps


def test_a_state_larger_than_a_record_is_kept_in_several(group: Group) -> None:
    """The records that it no longer needs are removed, and all of them when the series expires."""
    group.config, group.size = WindowConfig(seq_len=30, freq="1m"), 50
    write_steps(group.log, group.topic, [("a", minute) for minute in range(7, 40)])
    group.start()
    for _ in range(3):
        group.poll(12)
        group.write_pass()
    group.end()
    before = records_of(group, "a")
    assert before > 3
    group.start()
    expected = uninterrupted([*STEPS, *(("a", minute) for minute in range(7, 33))], group.config)
    assert contents(group.store) == contents(expected)
    write_steps(group.log, group.topic, [("a", 90)])  # after a gap: one step is left
    group.poll(100)
    group.write_pass()
    assert 0 < records_of(group, "a") < before
    idle = WindowStore(group.config, idle=60_000)
    group.store = idle
    for name, minute in [("a", 91), ("b", 99)]:
        idle.push(Event(name, START + minute * 60_000, (1.0,)))
    assert list(idle) == ["b"]
    group.write_pass()
    assert records_of(group, "a") == 0
    group.end()


def records_of(group: Group, series: str) -> int:
    """How many records the state of a series has."""
    newest: dict[bytes, bytes | None] = {}
    for batch in group.log.read(group.state_topic, 0, *group.log.bounds(group.state_topic)[0]):
        newest.update({record.key or b"": record.value for record in batch})
    return sum(name.endswith(b":" + series.encode()) for name, value in newest.items() if value is not None)


def test_a_series_of_which_a_part_is_missing_starts_empty(local: EventLog) -> None:
    topic = f"input-{next(names)}"
    local.create_topic(topic, 1)
    write_steps(local, topic, STEPS)
    group = Group(local, topic, f"group-{next(names)}", size=50)
    group.start()
    group.poll(9)
    group.write_pass()
    group.end()
    write(local, group.state_topic, 0, [(records.part_key(b"a", 1), None)])
    assert group.start().corrupt == 1
    assert set(group.store) == {"b"}
    group.end()


def test_several_partitions_are_written_and_recovered_at_once(log: EventLog, fresh: Fresh) -> None:
    topic = fresh("input")
    log.create_topic(topic, 3)
    steps = {number: [(f"{number}", minute) for minute in range(number, number + 3)] for number in range(3)}
    for number in range(3):
        write(log, topic, number, [(None, b"x")] * 3)
    group = Group(log, topic, fresh("group"))
    producer, consumer = log.producer(group.group), log.consumer(group.group, topic)
    owned: set[int] = set()
    until(lambda: len(owned) == 3, meanwhile=lambda: owned.update(consumer.poll(0.5, 1).assigned))
    topics, passes = Topics.look_up(log, topic, group.state_topic), dict[int, Pass]()
    for number in range(3):
        record = PartitionRecord(position=number + 1, partitions=3, topic_id=topics.topic_id)
        store = uninterrupted(steps[number], CONFIG)
        passes[number] = Pass(store, checkpoint.marked(record, topics.state_topic_id), {})
    write_pass(producer, consumer, group.state_topic, passes)
    committed = consumer.committed(range(3))
    assert {number: commit.offset for number, commit in committed.items()} == {0: 1, 1: 2, 2: 3}
    stores = {number: WindowStore(CONFIG) for number in range(3)}
    found = recovery.recover(log, Topics.look_up(log, topic, group.state_topic), stores, committed)
    assert {number: each.position for number, each in found.items()} == {0: 1, 1: 2, 2: 3}
    for number in range(3):
        assert contents(stores[number]) == contents(uninterrupted(steps[number], CONFIG))


def test_a_pass_in_a_topic_made_anew_is_refused(local: EventLog, stopped: Group) -> None:
    mine = PartitionRecord(position=4, partitions=1, topic_id=local.topic_id(stopped.topic))
    write(local, stopped.state_topic, 0, [(b"partition", records.encode_partition(checkpoint.marked(mine, "old")))])
    refused(local, stopped, "a part only", Commit(7, records.encode_metadata(4)))
    write(local, stopped.state_topic, 0, [(b"partition", records.encode_partition(mine))])  # as earlier versions do
    stopped.start()
    stopped.end()


def test_a_corrupt_series_starts_empty(local: EventLog, stopped: Group) -> None:
    write(local, stopped.state_topic, 0, [(b"s:a", b"\x01nonsense")])
    recovered = stopped.start()
    assert recovered.corrupt == 1
    assert "1 series" in recovered.notes[0]
    expected = uninterrupted([STEPS[1], *STEPS[4:7]], CONFIG)  # a's first events are forgotten
    assert contents(stopped.store) == contents(expected)
    stopped.end()


def test_a_series_with_a_tombstone_is_not_restored(group: Group) -> None:
    group.start()
    group.poll(4)
    group.write_pass()
    group.end()
    write(group.log, group.state_topic, 0, [(b"s:a", None)])
    assert group.start().corrupt == 0
    assert contents(group.store) == contents(uninterrupted([STEPS[1]], CONFIG))
    group.end()


def test_any_series_name_is_restored(local: EventLog, stopped: Group) -> None:
    write_steps(local, stopped.topic, [("partition", 1), ("s:a", 2), ("Größe", 3)])
    stopped.start()
    stopped.poll(100)
    stopped.write_pass()
    stopped.end()
    stopped.start()
    assert set(stopped.store) == {"a", "b", "partition", "s:a", "Größe"}
    stopped.end()


def test_state_without_a_commit_resumes_at_its_own_position(local: EventLog, stopped: Group) -> None:
    store = WindowStore(CONFIG)
    recovered = recover(local, stopped.topic, stopped.state_topic, None, store)
    assert (recovered.replay_from, recovered.position) == (4, 4)
    assert "expired" in recovered.notes[0]
    assert contents(store) == contents(uninterrupted(STEPS[:4], CONFIG))


@pytest.mark.parametrize(
    ("committed", "reason"),
    [
        (Commit(7), "offset 7 was not committed by its service"),
        (Commit(7, "by hand"), "offset 7 was not committed by its service"),
        (Commit(7, records.encode_metadata(3)), "offset 7 was not committed by its service"),
        (Commit(99, records.encode_metadata(4)), "the group was at 99"),
    ],
)
def test_a_commit_that_does_not_match_the_state_is_refused(
    local: EventLog, stopped: Group, committed: Commit, reason: str
) -> None:
    refused(local, stopped, reason, committed)


def refused(log: EventLog, group: Group, reason: str, committed: Commit | None, config: WindowConfig = CONFIG) -> None:
    with pytest.raises(StateMismatch, match=reason) as failure:
        recover(log, group.topic, group.state_topic, committed, WindowStore(config))
    assert f"state {group.state_topic}/0" in str(failure.value)
    assert "Use another group; or" in str(failure.value)


@pytest.mark.parametrize(
    "config",
    [
        WindowConfig(seq_len=5, freq="1m"),
        WindowConfig(seq_len=4, freq="2m"),
        WindowConfig(seq_len=4),
        WindowConfig(seq_len=4, freq="1m", max_gap=9),
        WindowConfig(seq_len=4, freq="1m", features=("flow",)),
    ],
)
def test_state_of_another_window_config_is_refused(local: EventLog, stopped: Group, config: WindowConfig) -> None:
    refused(local, stopped, "written with another seq_len", None, config)


def test_state_of_an_equivalent_window_config_is_restored(local: EventLog, stopped: Group) -> None:
    config = WindowConfig(seq_len=4, freq="60s")
    assert recover(local, stopped.topic, stopped.state_topic, None, WindowStore(config)).position == 4
    assert records.config_hash(WindowConfig(seq_len=4, max_gap=1)) == records.config_hash(WindowConfig(seq_len=4))


@pytest.mark.parametrize("metadata", ["", records.encode_metadata(0)])
def test_a_commit_without_state_is_refused(local: EventLog, stopped: Group, metadata: str) -> None:
    other = Group(local, stopped.topic, f"group-{next(names)}")
    refused(local, other, "without the partition's record", Commit(3, metadata))


def test_a_corrupt_partition_record_is_refused(local: EventLog, stopped: Group) -> None:
    write(local, stopped.state_topic, 0, [(b"partition", b"\x01nonsense")])
    refused(local, stopped, "corrupt", None)


@pytest.mark.parametrize("changed", [{"topic_id": "another"}, {"partitions": 2}])
def test_state_of_a_recreated_topic_is_refused(local: EventLog, stopped: Group, changed: dict[str, object]) -> None:
    mine = {"position": 4, "partitions": 1, "topic_id": local.topic_id(stopped.topic)}
    record = PartitionRecord(**(mine | changed))  # type: ignore[arg-type]
    write(local, stopped.state_topic, 0, [(b"partition", records.encode_partition(record))])
    refused(local, stopped, "another topic", Commit(7, records.encode_metadata(4)))


def test_a_state_topic_with_another_partition_count_is_refused(local: EventLog, stopped: Group) -> None:
    topic = f"input-{next(names)}"
    local.create_topic(topic, 2)
    with pytest.raises(StateMismatch, match=r"1 partitions, and .* has 2"):
        recover(local, topic, stopped.state_topic, None, WindowStore(CONFIG))


def test_a_later_format_is_refused(local: EventLog, stopped: Group) -> None:
    body = b"\x05" + b"what a later version wrote"
    sealed = body + zlib.crc32(b"s:a" + body).to_bytes(4, "big")
    write(local, stopped.state_topic, 0, [(b"s:a", sealed)])
    refused(local, stopped, "format 5", None)


def with_sections(group: Group) -> None:
    """Let the pass of a group that has ended hold sections, as a later version writes them."""
    state = next(batch for batch in group.log.read(group.state_topic, 0, *group.log.bounds(group.state_topic)[0]))
    held = {record.key or b"": record.value or b"" for record in state}
    name, series = records.decode_series(HASH, b"s:a", held[b"s:a"])
    record = records.decode_partition(held[b"partition"])
    partition = msgspec.structs.replace(record, sections={"watch": Section(7, b"all")})
    rows = [
        (b"s:a", records.encode_series(HASH, name, replace(series, sections=SECTIONS))),
        (b"partition", records.encode_partition(partition)),
    ]
    write(group.log, group.state_topic, 0, rows)


def test_a_section_of_an_unknown_name_is_kept(group: Group) -> None:
    group.start()
    group.poll(4)
    group.write_pass()
    group.end()
    with_sections(group)
    for count in (1, 4):
        group.start()
        group.poll(count)
        group.write_pass()
        group.end()
    group.start()
    kept = {name: state_of(group.store, name).sections for name in group.store}
    assert kept == {"a": SECTIONS, "b": {}}
    assert group.store.sections == {"watch": (7, b"all")}
    for name in group.store:
        group.store.restore({name: replace(state_of(group.store, name), sections={})})
    assert contents(group.store) == contents(uninterrupted(STEPS[:9], CONFIG))
    group.end()


@pytest.mark.parametrize(
    ("readable", "name"),
    [({"scores": 2}, "scores"), ({"watch": 6, "scores": 3}, "watch"), ({"watch": 7, "scores": 3, "other": 1}, None)],
)
def test_a_section_of_a_later_version_is_refused(stopped: Group, readable: dict[str, int], name: str | None) -> None:
    with_sections(stopped)

    def recovered() -> Recovered:
        store, topics = WindowStore(CONFIG), (stopped.topic, stopped.state_topic)
        return recover(stopped.log, *topics, None, store, readable=readable)

    if name is None:
        assert recovered().position == 4
        return
    with pytest.raises(
        StateMismatch, match=rf"its section {name} has version \d, and .* reads up to \d; use the version that"
    ):
        recovered()


def test_the_previous_format_is_restored(local: EventLog, stopped: Group) -> None:
    """What version 0.1 wrote: no times, nothing that waits, no stream time, and a checksum without the key."""
    config = records.config_hash(CONFIG)
    values, observed = np.array([1.5, 2.5], "<f4").tobytes(), np.packbits([True, False]).tobytes()
    series = b"\x01" + msgspec.msgpack.encode((config, 28_333_335, START + 60_000, 2, values, observed))
    partition = b"\x01" + msgspec.msgpack.encode((4, 1, local.topic_id(stopped.topic)))
    sealed = [(b"s:old", series), (b"partition", partition)]
    rows = [(key, body + zlib.crc32(body).to_bytes(4, "big")) for key, body in sealed]
    write(local, stopped.state_topic, 0, rows)
    store = WindowStore(CONFIG)
    assert recover(local, stopped.topic, stopped.state_topic, None, store).position == 4
    state = store.state("old")
    assert state is not None
    assert state.values.tolist() == [[1.5], [2.5]]
    assert state.observed.tolist() == [[True], [False]]
    assert (state.step, state.ts, state.last_event_ts) == (28_333_335, START + 60_000, START + 60_000)
    assert store.stream_time == max(each.last_event_ts for name in store if (each := store.state(name)))


@pytest.mark.parametrize(
    ("start", "position", "notes"),
    [
        (4, 7, []),
        (6, 7, ["offsets 4 to 5 are no longer"]),
        (9, 9, ["offsets 4 to 6 are no", "offsets 7 to 8 were del"]),
    ],
)
def test_deleted_records_that_are_needed_are_reported(
    local_path: Path, stopped: Group, start: int, position: int, notes: list[str]
) -> None:
    with contextlib.closing(sqlite3.connect(local_path)) as file, file:
        where = "partition_id = (SELECT id FROM partitions WHERE topic = ?)"
        file.execute(f"DELETE FROM records WHERE offset < ? AND {where}", (start, stopped.topic))
    recovered = stopped.start()
    assert (recovered.replay_from, recovered.position) == (4, position)
    assert [note[: len(words)] for note, words in zip(recovered.notes, notes, strict=True)] == notes
    known = [*STEPS[:4], *STEPS[start:7]]
    assert contents(stopped.store) == contents(uninterrupted(known, CONFIG))
    assert len(stopped.poll(100)) > 0
    stopped.end()
