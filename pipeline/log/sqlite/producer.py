"""A producer on the SQLite log: records are buffered until `flush`, or until `commit` in a transaction."""

import sqlite3
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

import msgspec

from pipeline import failpoint
from pipeline.log import Commit, Consumer, Record, Refusal, Sent
from pipeline.log.sqlite.consumer import SqliteConsumer
from pipeline.log.sqlite.store import Store
from tidecast.errors import ConsumerFenced, LogError, UnknownTopic

MAX_RECORDS = 10_000
MAX_BYTES = 16 << 20

Row = tuple[int, bytes | None, bytes | None, bytes | None]
"""timestamp, key, value, headers"""


class SqliteProducer:
    """Writes its buffer atomically: after a failed flush all of it is still there for the next one."""

    on_refusal: Callable[[Sent, Refusal], Sent] | None = None
    """Never called: this log refuses no record because of what it is."""

    def __init__(self, path: Path, transactional_id: str | None) -> None:
        self._store = Store(path)
        self._id = transactional_id
        self._epoch = 0 if transactional_id is None else self._fence(transactional_id)
        self._in_transaction = False
        self._partitions: dict[str, int] = {}
        self._keyless = count()
        self._rows: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)
        self._records = 0
        self._bytes = 0

    def _fence(self, transactional_id: str) -> int:
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT INTO writers VALUES (?, 1) ON CONFLICT (transactional_id) DO UPDATE SET epoch = epoch + 1",
                (transactional_id,),
            )
            return self._current(connection)

    def _current(self, connection: sqlite3.Connection) -> int:
        sql = "SELECT epoch FROM writers WHERE transactional_id = ?"
        return int(connection.execute(sql, (self._id,)).fetchone()[0])

    def send(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        cause: Record | None = None,
    ) -> None:
        """Queue one record. Partition None: chosen by the key. Flushes when the buffer is full."""
        if self._id is not None and not self._in_transaction:
            raise LogError(f"producer {self._id}: no transaction is open")
        where = (topic, self._partition_of(topic, partition, key))
        at = time.time_ns() // 1_000_000 if timestamp is None else timestamp
        self._rows[where].append((at, key, value, msgspec.msgpack.encode(headers) if headers else None))
        self._records += 1
        self._bytes += len(value or b"")
        if self._id is None and (self._records >= MAX_RECORDS or self._bytes >= MAX_BYTES):
            self.flush()

    def _partition_of(self, topic: str, partition: int | None, key: bytes | None) -> int:
        partitions = self._partitions.get(topic)
        if partitions is None:
            ((partitions,),) = self._store.query("SELECT count(*) FROM partitions WHERE topic = ?", topic)
            if not partitions:
                raise UnknownTopic(f"topic {topic} does not exist")
            self._partitions[topic] = partitions
        if partition is None:
            return next(self._keyless) % partitions if key is None else by_key(key, partitions)
        if not 0 <= partition < partitions:
            raise ValueError(f"{topic} has {partitions} partitions, none is {partition}")
        return partition

    def flush(self) -> None:
        """Write the buffer; within a transaction `commit` does."""
        if self._records and not self._in_transaction:
            with self._store.transaction() as connection:
                self._write(connection)
            self._forget()

    def _write(self, connection: sqlite3.Connection) -> None:
        for (topic, number), rows in self._rows.items():
            found = connection.execute(
                "SELECT id, end_offset, compacted FROM partitions JOIN topics ON topic = name"
                " WHERE topic = ? AND number = ?",
                (topic, number),
            ).fetchone()
            if found is None:
                raise UnknownTopic(f"topic {topic} does not exist any more")
            partition_id, end, compacted = found
            stored = [(partition_id, end + index, *row, compacted) for index, row in enumerate(rows)]
            if compacted:
                newest = {key: row for row in stored if (key := row[3]) is not None}
                stored = [row for row in stored if row[3] is None or newest[row[3]] is row]
                connection.executemany(
                    "DELETE FROM records INDEXED BY newest WHERE partition_id = ? AND key = ? AND compacted = 1",
                    [(partition_id, key) for key in newest],
                )
            connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", stored)
            connection.execute("UPDATE partitions SET end_offset = ? WHERE id = ?", (end + len(rows), partition_id))

    def _forget(self) -> None:
        self._rows.clear()
        self._records = self._bytes = 0

    def begin(self) -> None:
        """Open a transaction."""
        if self._id is None:
            raise LogError("a transaction needs a producer with a transactional id")
        self._in_transaction = True

    def commit(self, offsets: Mapping[int, Commit], consumer: Consumer) -> None:
        """Write records and the consumer's offsets atomically. Raises ConsumerFenced if either has been fenced."""
        assert isinstance(consumer, SqliteConsumer)
        with self._store.transaction() as connection:
            if self._current(connection) != self._epoch:
                raise ConsumerFenced(f"producer {self._id} has been fenced by a newer one")
            self._write(connection)
            consumer.record(connection, offsets)
            failpoint.reached("offsets-sent")
        self.abort()

    def abort(self) -> None:
        """Abort the open transaction."""
        self._in_transaction = False
        self._forget()

    def renew(self) -> None:
        """Abort what is open: topics have no numbers here."""
        self.abort()

    def close(self) -> None:
        """Drop what is not written, and close."""
        self._store.close()


def by_key(key: bytes, partitions: int) -> int:
    """The partition of a key, of so many."""
    return zlib.crc32(key) % partitions
