"""EventLog: what Tidecast needs of a partitioned log, and the words it uses for it.

`pipeline.log.connect` opens one: Kafka at ``host:port[,host:port]``, or one SQLite file at ``sqlite:PATH``.
Both pass the same list of checks (tests/pipeline/test_log.py). Times are epoch milliseconds, keys and values bytes.
What a log refuses is a LogError (tidecast.errors).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

MAX_VALUE_BYTES = 65_536
"""The longest key or value of an event."""


class Record(Protocol):
    """One record as read. `offset` is its position in the partition, `timestamp` the log's own.

    Where a log's records may unpack to any size, keys and values too long for an event come as Cut. Those of topics
    that were created `compacted` do not.
    """

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Undecodable(list[tuple[str, bytes]]):
    """Headers of a record that can't be read as it was written: what could be had of them, and `why` it is so."""

    def __init__(self, headers: Iterable[tuple[str, bytes]], why: str) -> None:
        super().__init__(headers)
        self.why = why


class Truncated(bytes):
    """The beginning of a key or value that is longer than an event's may be; `sha256` is the whole's, hexadecimal."""

    sha256: str

    @classmethod
    def of(cls, whole: bytes, length: int) -> Self:
        """The first `length` bytes."""
        cut = cls(whole[:length])
        cut.sha256 = hashlib.sha256(whole).hexdigest()
        return cut


class Bounds(NamedTuple):
    """Offsets held by a partition: `start` the oldest kept, `end` one past the newest."""

    start: int
    end: int


class Commit(NamedTuple):
    """A group's position in a partition: the next offset to read, and up to 4,096 bytes of its own."""

    offset: int
    metadata: str = ""


class TopicConfig(NamedTuple):
    """What a log does with a topic's records. None stands for no limit."""

    compacted: bool
    """Whether older records of a key are dropped: offsets have holes then."""
    retention_ms: int | None
    """How old a record gets before it is dropped."""
    retention_bytes: int | None
    """How large a partition gets before its oldest records are dropped."""
    replication: int
    """On how many brokers each partition lies; the fewest, where partitions differ."""
    min_insync: int
    """How many of these must have a record before it counts as written."""
    max_message_bytes: int
    """The largest batch of records that is taken, and so the largest record."""
    brokers: int
    """How many the log has."""


class Poll(NamedTuple):
    """What one poll brought.

    `assigned` are partitions that must be `seek`ed before any of their records arrive; `revoked` ones belong to
    somebody else now; one in both was lost and came back. Records come in offset order in a partition. While the group
    is `rebalancing` no records come, and nothing can be committed.
    """

    assigned: tuple[int, ...]
    revoked: tuple[int, ...]
    records: Mapping[int, Sequence[Record]]
    rebalancing: bool = False


class Consumer(Protocol):
    """One consumer in a group on one topic."""

    def poll(self, timeout: float, max_records: int) -> Poll:
        """Wait up to `timeout` seconds for records or a changed assignment."""
        ...

    def committed(self, partition: int) -> Commit | None:
        """The group's committed position, or None if there is none."""
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Start (or go on) reading an assigned partition at `offset`."""
        ...

    def commit(self, offsets: Mapping[int, Commit]) -> None:
        """Commit outside a transaction, and wait for the answer. Raises ConsumerFenced, LogUnavailable."""
        ...

    def lag(self) -> dict[int, int]:
        """For each partition being read, how many committed offsets lie beyond its position."""
        ...

    def close(self) -> None:
        """Leave the group at once, so that its partitions move on; a static member keeps them for its return."""
        ...


class Producer(Protocol):
    """A producer. With a transactional id, records are sent between `begin` and `commit`."""

    def send(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Queue one record, to be written at the latest by `flush`; partition None places it by its key.

        Blocks when too much is in flight.
        """
        ...

    def flush(self) -> None:
        """Return when all that was sent is acknowledged; raise the first failure of any record."""
        ...

    def begin(self) -> None:
        """Open a transaction."""
        ...

    def commit(self, offsets: Mapping[int, Commit], consumer: Consumer) -> None:
        """Flush, then commit records and the member's offsets as one, under the generation of its last poll."""
        ...

    def abort(self) -> None:
        """Drop the open transaction."""
        ...

    def close(self) -> None:
        """Give up what is not acknowledged and close."""
        ...


class EventLog(Protocol):
    """A connection to a partitioned log."""

    label: str
    """The log in words, for people, without secrets."""
    timeout_s: float
    """Seconds after which a call that has not returned never will."""

    def create_topic(self, topic: str, partitions: int, *, compacted: bool = False) -> int:
        """Create the topic if it is missing; return how many partitions it has, new or old."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises UnknownTopic."""
        ...

    def topic_id(self, topic: str) -> str:
        """An identity that changes when a topic is deleted and made again. Raises UnknownTopic."""
        ...

    def topic_config(self, topic: str) -> TopicConfig:
        """What is kept of a topic, and how safely. Raises UnknownTopic; NotAuthorized where that may not be read."""
        ...

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """A group's committed positions, for those who only look: partitions without one are left out.

        Raises UnknownTopic.
        """
        ...

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """Each partition's oldest and next offset, open transactions included. Raises UnknownTopic."""
        ...

    def offsets_at(self, topic: str, timestamp: int) -> dict[int, int]:
        """Each partition's first offset whose record is at `timestamp` or later, else its end."""
        ...

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[Sequence[Record]]:
        """The committed records with start <= offset < stop, in order, in batches; then end.

        Raises LogUnavailable if an open transaction or an unreachable log keeps it from passing `stop`.
        """
        ...

    def producer(self, transactional_id: str | None = None) -> Producer:
        """A producer; a transactional id fences its predecessor and aborts that one's open transaction."""
        ...

    def consumer(self, group: str, topic: str, *, instance: str | None = None, static: bool = False) -> Consumer:
        """Become a member of `group` on `topic`. `instance` names the member in the broker's lists and logs.

        A `static` one is known to the group by that name, and gets its partitions back when it returns in time.
        """
        ...

    def close(self) -> None:
        """Close the connection and everything it opened that is still open."""
        ...
