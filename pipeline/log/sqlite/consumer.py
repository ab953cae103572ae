"""A consumer on the SQLite log: a partition belongs to the member of the group that holds its file lock."""

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from pipeline.log import Commit, Poll, Record
from pipeline.log.sqlite.store import Store, translated
from tidecast.errors import ConsumerFenced, LogError, UnknownTopic

TICK = 0.005
"""Seconds between two checks for new records."""
CLAIM = 0.2
"""Seconds between two attempts to claim partitions of others."""
MAX_METADATA = 4096


class SqliteConsumer:
    """Claims free partitions when it polls, and keeps them until it is closed or its process ends.

    The claims table names each partition's member too, for commits to check: file locks are not transactional.
    """

    def __init__(self, path: Path, locks: Path, group: str, topic: str) -> None:
        self.before_revocation: Callable[[], None] | None = None
        """Never called: this log takes no partition away."""
        self._store = Store(path)
        self._path = path
        self._group = group
        self._topic = topic
        self._name = uuid.uuid4().hex
        rows = self._store.query("SELECT number, id FROM partitions WHERE topic = ?", topic)
        self._ids: dict[int, int] = dict(rows)
        (self._compacted,) = self._store.query("SELECT compacted FROM topics WHERE name = ?", topic)[0]
        prefix = f"{quote(group, safe='')}@{topic}"
        self._free = {number: FileLock(locks / f"{prefix}@{number}", thread_local=False) for number in self._ids}
        self._held: dict[int, FileLock] = {}
        self._positions: dict[int, int] = {}
        self._next_claim = 0.0

    def poll(self, timeout: float, max_records: int) -> Poll:
        """Wait up to `timeout` seconds for records or a claimed partition."""
        deadline = time.monotonic() + timeout
        while True:
            version = self._version()
            assigned = self._claim()
            records = self._fetch(max_records)
            if assigned or records or time.monotonic() >= deadline:
                return Poll(assigned, (), records)
            until = min(deadline, self._next_claim) if self._free else deadline
            while time.monotonic() < until and self._version() == version:
                time.sleep(TICK)

    def _version(self) -> int:
        """A number that changes when another connection has written."""
        ((version,),) = self._store.query("PRAGMA data_version")
        return int(version)

    def _claim(self) -> tuple[int, ...]:
        if not self._free or time.monotonic() < self._next_claim:
            return ()
        self._next_claim = time.monotonic() + CLAIM
        claimed = tuple(number for number, lock in self._free.items() if self._acquired(lock))
        if claimed:
            self._held |= {number: self._free.pop(number) for number in claimed}
            rows = [(self._group, self._ids[number], self._name) for number in claimed]
            with self._store.transaction() as connection:
                connection.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", rows)
        return claimed

    def _acquired(self, lock: FileLock) -> bool:
        with translated(self._path), contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
        return bool(lock.is_locked)

    def _fetch(self, max_records: int) -> dict[int, Sequence[Record]]:
        ends = dict(self._store.query("SELECT number, end_offset FROM partitions WHERE topic = ?", self._topic))
        if not self._positions.keys() <= ends.keys():
            raise UnknownTopic(f"topic {self._topic} does not exist any more")
        fetched: dict[int, Sequence[Record]] = {}
        for number, position in list(self._positions.items()):
            if max_records <= 0 or ends[number] <= position:
                continue
            records = self._store.records(self._topic, number, position, ends[number], max_records)
            if not self._compacted and (not records or records[0].offset > position):
                raise LogError(f"{self._topic}/{number}: offset {position} is no longer in the log")
            del self._positions[number]  # moves to the end of the order, for fairness
            self._positions[number] = records[-1].offset + 1 if records else ends[number]
            max_records -= len(records)
            if records:
                fetched[number] = records
        return fetched

    def committed(self, partitions: Iterable[int]) -> dict[int, Commit]:
        """The group's committed positions; partitions without one are left out."""
        rows = self._store.query(
            "SELECT partition_id, offset, metadata FROM commits WHERE member_group = ?", self._group
        )
        found = {where: Commit(offset, metadata) for where, offset, metadata in rows}
        return {number: found[self._ids[number]] for number in partitions if self._ids[number] in found}

    def seek(self, partition: int, offset: int) -> None:
        """Read an assigned partition from `offset` on."""
        if partition not in self._held:
            raise ValueError(f"{self._topic}/{partition} is not assigned")
        self._positions[partition] = offset

    def commit(self, offsets: Mapping[int, Commit]) -> None:
        """Commit synchronously. Raises ConsumerFenced, LogUnavailable."""
        with self._store.transaction() as connection:
            self.record(connection, offsets)

    def record(self, connection: sqlite3.Connection, offsets: Mapping[int, Commit]) -> None:
        """Write `offsets` within the connection's transaction. Raises ConsumerFenced for others' partitions."""
        for number, commit in offsets.items():
            where = (self._group, self._ids[number])
            claim = "SELECT member FROM claims WHERE member_group = ? AND partition_id = ?"
            if connection.execute(claim, where).fetchone() != (self._name,):
                raise ConsumerFenced(f"group {self._group}: {self._topic}/{number} belongs to another member now")
            if len(commit.metadata.encode()) > MAX_METADATA:
                raise LogError(f"{self._topic}/{number}: commit metadata is longer than {MAX_METADATA} bytes")
            connection.execute("INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?)", (*where, *commit))

    def lag(self) -> dict[int, int]:
        """For each partition being read, how many offsets lie beyond its position."""
        ends = dict(self._store.query("SELECT number, end_offset FROM partitions WHERE topic = ?", self._topic))
        return {number: ends[number] - position for number, position in self._positions.items()}

    def close(self) -> None:
        """Leave the group at once, so that its partitions become free."""
        for lock in self._held.values():
            lock.release()
        self._held.clear()
        self._positions.clear()
        self._store.close()
