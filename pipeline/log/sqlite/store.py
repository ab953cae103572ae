"""The file of the SQLite log: its tables, connections, and the LogErrors that its errors become."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.log import StoredRecord
from tidecast.errors import FORBIDDEN, LogError, LogUnavailable, NotAuthorized

BUSY = 30.0
"""Seconds to wait for other writers."""

# A partition's `end_offset` is stored apart from its records, so that it never decreases when those are deleted.
SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, uid TEXT NOT NULL, compacted INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS partitions (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, end_offset INTEGER NOT NULL,
    UNIQUE (topic, number));
CREATE TABLE IF NOT EXISTS records (
    partition_id INTEGER, offset INTEGER, timestamp INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB,
    compacted INTEGER NOT NULL, PRIMARY KEY (partition_id, offset)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS newest ON records (partition_id, key) WHERE compacted = 1;
CREATE TABLE IF NOT EXISTS commits (
    member_group TEXT, partition_id INTEGER, offset INTEGER NOT NULL, metadata TEXT NOT NULL,
    PRIMARY KEY (member_group, partition_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    member_group TEXT, partition_id INTEGER, member TEXT NOT NULL,
    PRIMARY KEY (member_group, partition_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writers (transactional_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL);
"""

MEANINGS: dict[str, type[LogError]] = {
    "SQLITE_BUSY": LogUnavailable,
    "SQLITE_LOCKED": LogUnavailable,
    "SQLITE_PERM": NotAuthorized,
    "SQLITE_READONLY": NotAuthorized,
}
HEADERS = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])


class Store:
    """One connection to the file. Calls from several threads wait for each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with translated(path):
            self._file: tuple[int, int] | None = None
            self._connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def create(self) -> None:
        """Create the tables if they do not exist."""
        with self._lock, translated(self._path):
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(SCHEMA)
            self._file = self._found()

    def is_current(self) -> bool:
        """Whether the file's path still leads to the file whose tables were created, and not to none or another one."""
        return self._file == self._found()

    def _found(self) -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            return found.st_dev, found.st_ino
        return None

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows."""
        with self._lock, translated(self._path):
            return self._connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: what is written with the connection is committed, or rolled back if the block raises."""
        with self._lock, translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()

    def records(self, topic: str, partition: int, start: int, stop: int, limit: int) -> list[StoredRecord]:
        """The first `limit` records with start <= offset < stop."""
        rows = self.query(
            "SELECT offset, timestamp, key, value, headers FROM records WHERE offset >= ? AND offset < ? AND"
            " partition_id = (SELECT id FROM partitions WHERE topic = ? AND number = ?) ORDER BY offset LIMIT ?",
            *(start, stop, topic, partition, limit),
        )
        return [
            StoredRecord(topic, partition, offset, timestamp, key, value, HEADERS.decode(headers) if headers else ())
            for offset, timestamp, key, value, headers in rows
        ]

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise the errors of SQLite and of the file system as LogErrors that name the file."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith("SQLITE_CANTOPEN") and not os.access(path if path.exists() else path.parent, os.W_OK):
            code = "SQLITE_PERM"
        raise MEANINGS.get("_".join(code.split("_")[:2]), LogError)(f"log file {path}: {error}") from error
    except OSError as error:
        kind = NotAuthorized if error.errno in FORBIDDEN else LogError
        raise kind(f"log file {path}: {error.strerror or error}") from error
