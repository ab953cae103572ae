"""What the page keeps of the past: a private temporary SQLite file of limited size, in which the oldest rows go first.

SQLite makes the file itself, without a name, so that nobody else can open it and nothing is left of it in the end.
"""

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MB = 1 << 20
PARTS = 4
"""Tables of one kind of rows: the oldest is dropped as a whole, which is cheap, when all are full."""
FORECAST = """(track, ts, start, step, model, anomaly, coverage, source, partition, number, forecast BLOB, lower BLOB,
upper BLOB, PRIMARY KEY (track, ts))"""
"""The columns of forecasts; `number` is the record's offset."""


@dataclass(slots=True)
class Ring:
    """Rows of one kind, in several tables of which the oldest is dropped when a new one begins.

    Rows of equal primary keys are one: in the same table the last one (`replace`) or the first one stays.
    """

    connection: sqlite3.Connection
    lock: threading.RLock
    name: str
    columns: str
    limit: int
    """Bytes of all tables, as counted by `add`."""
    index: str = ""
    """Further SQL for each table, with {table} for its name."""
    verb: str = "INSERT OR REPLACE"
    dropped: int = 0
    """Tables that are gone."""
    _tables: list[str] = field(default_factory=list)
    _made: int = 0
    _bytes: int = 0
    _marks: str = ""

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        table = f"{self.name}_{self._made}"
        self._made, self._bytes = self._made + 1, 0
        self.connection.execute(f"CREATE TABLE {table} {self.columns}")
        if self.index:
            self.connection.execute(self.index.format(table=table))
        self._tables.append(table)
        if not self._marks:
            width = len(self.connection.execute(f"PRAGMA table_info({table})").fetchall())
            self._marks = ", ".join("?" * width)
        while len(self._tables) > PARTS:
            self.connection.execute(f"DROP TABLE {self._tables.pop(0)}")
            self.dropped += 1

    def add(self, rows: Sequence[Sequence[Any]], size: int) -> None:
        """Add rows of about `size` bytes in all."""
        if not rows:
            return
        with self.lock:
            if self._bytes and self._bytes + size > self.limit / PARTS:
                self._begin()
            self._bytes += size
            sql = f"{self.verb} INTO {self._tables[-1]} VALUES ({self._marks})"
            self.connection.executemany(sql, rows)

    def select(self, what: str, where: str, values: Sequence[object], tail: str = "") -> list[tuple[Any, ...]]:
        """Rows of all tables, older tables first unless `tail` orders them."""
        # All of it is ours; what others chose is among the values.
        parts = " UNION ALL ".join(f"SELECT {what} FROM {table} WHERE {where}" for table in self._tables)  # noqa: S608
        with self.lock:
            return self.connection.execute(f"{parts} {tail}", [*values] * len(self._tables)).fetchall()


class Store:
    """Values, forecasts, scores and alerts by track, a series' target with a number of its own. Times are epoch ms."""

    def __init__(self, limit: int = 1024 * MB) -> None:
        """`limit` is about the size that the file may have, in bytes."""
        connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16384", "page_size = 8192"):
            connection.execute(f"PRAGMA {pragma}")
        self._connection, self.lock = connection, threading.RLock()

        def ring(name: str, columns: str, share: float, index: str = "", verb: str = "INSERT OR REPLACE") -> Ring:
            return Ring(connection, self.lock, name, columns, int(share * limit), index, verb)

        self.values = ring(
            "value", "(track, ts, value REAL, PRIMARY KEY (track, ts)) WITHOUT ROWID", 0.1, verb="INSERT OR IGNORE"
        )
        anomalies = "CREATE INDEX {table}_anomaly ON {table} (track, ts) WHERE anomaly > 1"
        self.forecasts = ring("forecast", FORECAST, 0.55, anomalies)
        self.shadow = ring("shadow", FORECAST, 0.05)
        self.scores = ring(
            "score",
            "(series, start, until, partition, origin, value BLOB, PRIMARY KEY (series, start, until, partition, "
            "origin)) WITHOUT ROWID",
            0.2,
        )
        self.sums = ring(
            "sums",
            "(track, start, until, partition, origin, model, count REAL, error REAL, naive REAL, intervals REAL, "
            "inside REAL, PRIMARY KEY (start, track, until, partition, origin, model)) WITHOUT ROWID",
            0.05,
        )
        self.alerts = ring(
            "alert",
            "(series, since, kind, phase, target, ts, value BLOB, PRIMARY KEY (series, since, kind, phase, "
            "target)) WITHOUT ROWID",
            0.05,
        )

    def close(self) -> None:
        """Close the file, which then is gone."""
        with self.lock:
            self._connection.close()
