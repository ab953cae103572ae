"""EventLog in one SQLite file: the default, for development on one machine.

Several processes may use the file at once. There are no rebalances: in a group a partition belongs to the member that
claimed it first, and becomes free when that member is closed or its process ends, in whatever way.
"""

import contextlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path

from filelock import FileLock

from pipeline.log import Bounds, Commit, Consumer, Member, Producer, Record
from pipeline.log.sqlite.consumer import SqliteConsumer
from pipeline.log.sqlite.producer import SqliteProducer, by_key
from pipeline.log.sqlite.store import BUSY, Store, translated
from pipeline.log.topics import TopicConfig, TopicIdentity
from tidecast.errors import ConfigError, LogError, LogUnavailable, UnknownTopic

PAGE = 5_000
"""Records in one batch of `read`."""
MAX_RECORD = 1_000_000_000
"""The largest value that SQLite takes."""
NAME = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
"""The names that Kafka allows for a topic."""


class SqliteLog:
    """EventLog in the SQLite file at `path`, created with its folder if missing; locks are beside it in ``path.locks``.

    Raises ConfigError for an empty path, LogError for a file or folder that can't be used.
    """

    def __init__(self, path: str) -> None:
        if not path:
            raise ConfigError("sqlite: needs the path of a file, such as sqlite:.tidecast/log.db")
        self.label = f"SQLite at {path}"
        self.timeout_s = 2 * BUSY
        self.batch_s = inf  # a transaction has no time-out
        self._path = Path(path).absolute()
        self._locks = Path(f"{self._path}.locks")
        with translated(self._path):
            self._locks.mkdir(parents=True, exist_ok=True)
            self._store = Store(self._path)
            with FileLock(
                self._locks / "schema", timeout=BUSY
            ):  # SQLite's busy timeout does not cover the switch to WAL
                self._store.create()
        self._opened: list[Consumer | Producer] = []

    def create_topic(self, topic: str, partitions: int, *, compacted: bool = False, any_time: bool = False) -> int:
        """Create the topic if it does not exist; return its number of partitions either way. Any takes `any_time`."""
        with contextlib.suppress(UnknownTopic):
            return self.partitions(topic)
        if not NAME.fullmatch(topic) or partitions < 1:
            raise LogError(f"a topic named {topic!r} with {partitions} partitions is not possible")
        with self._store.transaction() as connection:
            row = (topic, uuid.uuid4().hex, compacted)
            if connection.execute("INSERT OR IGNORE INTO topics VALUES (?, ?, ?)", row).rowcount:
                rows = [(topic, number) for number in range(partitions)]
                connection.executemany("INSERT INTO partitions (topic, number, end_offset) VALUES (?, ?, 0)", rows)
        return self.partitions(topic)

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics, with all of their records."""
        with self._store.transaction() as connection:
            for topic in topics:
                for table in ("records", "commits", "claims"):  # a later partition may have the same id
                    of_topic = "partition_id IN (SELECT id FROM partitions WHERE topic = ?)"
                    connection.execute(f"DELETE FROM {table} WHERE {of_topic}", (topic,))  # noqa: S608
                connection.execute("DELETE FROM partitions WHERE topic = ?", (topic,))
                connection.execute("DELETE FROM topics WHERE name = ?", (topic,))

    def topics(self) -> list[str]:
        """The names of all topics, sorted."""
        return [name for (name,) in self._store.query("SELECT name FROM topics ORDER BY name")]

    def partitions(self, topic: str) -> int:
        """A topic's number of partitions. Raises UnknownTopic."""
        return len(self.bounds(topic))

    def partition_of(self, key: bytes, partitions: int) -> int:
        """The partition, of so many, that a producer chooses by this key."""
        return by_key(key, partitions)

    def topic_id(self, topic: str) -> str:
        """An id that changes when a topic is deleted and created again. Raises UnknownTopic."""
        rows = self._store.query("SELECT uid FROM topics WHERE name = ?", topic)
        if not rows:
            raise UnknownTopic(f"topic {topic} does not exist")
        return str(rows[0][0])

    def identities(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        """The identities of those of these topics that exist: of none, once the file is another one, or none."""
        if not self._store.is_current():
            return {}
        rows = self._store.query("SELECT name, uid, count(*) FROM topics JOIN partitions ON topic = name GROUP BY name")
        wanted = set(topics)
        return {name: TopicIdentity(uid, count) for name, uid, count in rows if name in wanted}

    def topic_config(self, topic: str) -> TopicConfig:
        """No retention limits and one replica; compacted topics keep each key's newest record. Raises UnknownTopic."""
        self.topic_id(topic)
        ((compacted,),) = self._store.query("SELECT compacted FROM topics WHERE name = ?", topic)
        return TopicConfig(bool(compacted), None, None, 1, 1, MAX_RECORD, 1)

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """A group's committed positions; partitions without one are left out. Raises UnknownTopic."""
        self.topic_id(topic)
        rows = self._store.query(
            "SELECT number, offset, metadata FROM commits JOIN partitions ON partition_id = id"
            " WHERE member_group = ? AND topic = ?",
            *(group, topic),
        )
        return {number: Commit(offset, metadata) for number, offset, metadata in rows}

    def members(self, group: str) -> list[Member]:
        """None: claims name no instance."""
        return []

    def remove_member(self, group: str, name: str) -> None:
        """Nothing: a process that ends gives up its claims."""

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """Each partition's oldest and next offset. Raises UnknownTopic."""
        rows = self._store.query(
            "SELECT number, ifnull((SELECT min(offset) FROM records WHERE partition_id = id), end_offset), end_offset"
            " FROM partitions WHERE topic = ? ORDER BY number",
            topic,
        )
        if not rows:
            raise UnknownTopic(f"topic {topic} does not exist")
        return {number: Bounds(start, end) for number, start, end in rows}

    def offsets_at(self, topic: str, timestamp: int) -> dict[int, int]:
        """Each partition's first offset with a timestamp of `timestamp` or later, else its end."""
        self.topic_id(topic)
        rows = self._store.query(
            "SELECT number, ifnull((SELECT offset FROM records WHERE partition_id = id AND timestamp >= ?"
            " ORDER BY offset LIMIT 1), end_offset) FROM partitions WHERE topic = ?",
            *(timestamp, topic),
        )
        return dict(rows)

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[Sequence[Record]]:
        """The records with start <= offset < stop, in order, in batches. Raises LogUnavailable if the end is before."""
        bounds = self.bounds(topic)
        if partition not in bounds:
            raise ConfigError(f"{topic} has {len(bounds)} partitions, none is {partition}")
        while records := self._store.records(topic, partition, start, stop, PAGE):
            yield records
            start = records[-1].offset + 1
        if bounds[partition].end < stop:
            raise LogUnavailable(f"{topic}/{partition} ends at {bounds[partition].end}, before {stop}")

    def read_partitions(
        self, topic: str, ranges: Mapping[int, Bounds], *, whole: bool = False
    ) -> Iterator[Sequence[Record]]:
        """The records of several partitions from `start` up to `end`, one partition after another."""
        for partition, (start, end) in ranges.items():
            if start < end:
                yield from self.read(topic, partition, start, end)

    def producer(self, transactional_id: str | None = None) -> Producer:
        """A producer; a transactional id fences the one before it."""
        producer = SqliteProducer(self._path, transactional_id)
        self._opened.append(producer)
        return producer

    def consumer(self, group: str, topic: str, *, instance: str | None = None, static: bool = False) -> Consumer:
        """Join `group` on `topic`. `instance` has no effect, as nothing lists the members.

        A claim ends with its process, so a static member gets back only the partitions that are still free.
        """
        self.topic_id(topic)
        consumer = SqliteConsumer(self._path, self._locks, group, topic)
        self._opened.append(consumer)
        return consumer

    def close(self) -> None:
        """Close the file, and the producers and consumers that are still open."""
        with contextlib.ExitStack() as closing:  # each of them, even if one raises
            for each in (self._store, *self._opened):
                closing.callback(each.close)
