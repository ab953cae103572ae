"""EventLog: the interface of a partitioned log, as far as Tidecast needs one.

`pipeline.log.connect` opens one: Kafka at ``host:port[,host:port]``, or one SQLite file at ``sqlite:PATH``.
Both pass the same tests (tests/pipeline/log/test_log.py). Times are epoch milliseconds, keys and values bytes.
Failures are raised as LogErrors (tidecast.errors).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from pipeline.log.topics import TopicConfig, TopicIdentity


class Record(Protocol):
    """A consumed record. `timestamp` is the one that the log keeps for it.

    Where compressed records may have any size, keys and values too large for an event are Truncated.
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


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record by its values."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Undecodable(list[tuple[str, bytes]]):
    """Headers of a record that cannot be decoded: those that could be read, and `why` the record cannot."""

    def __init__(self, headers: Iterable[tuple[str, bytes]], why: str) -> None:
        super().__init__(headers)
        self.why = why


class Bounds(NamedTuple):
    """A partition's offsets: `start` is the oldest retained, `end` one past the newest."""

    start: int
    end: int


class Commit(NamedTuple):
    """A group's committed position in a partition: the next offset to read, and up to 4,096 bytes of metadata."""

    offset: int
    metadata: str = ""


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A record as it was given to a producer."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    timestamp: int | None
    headers: Sequence[tuple[str, bytes]]
    cause: Record | None
    """The record that it came of."""
    refusals: int
    """How often what it replaces was refused."""


class Refusal(NamedTuple):
    """Why a log does not take a record: because of the record, and so whenever it is sent."""

    why: str
    too_large: bool
    """Because of its size; else because of its time, its key or another part of it."""


class Member(NamedTuple):
    """A member of a group: the instance's name that it was given, and where it runs."""

    name: str
    host: str


class Poll(NamedTuple):
    """The result of one poll.

    `assigned` are new partitions, whose records arrive only after a `seek`; `revoked` ones belong to another consumer
    now; one in both was lost and assigned again. Within a partition records are in offset order. While the group is
    `rebalancing` no records arrive, and nothing can be committed. A member that has not `joined` may have partitions
    yet, one that has may be left with none.
    """

    assigned: tuple[int, ...]
    revoked: tuple[int, ...]
    records: Mapping[int, Sequence[Record]]
    rebalancing: bool = False
    joined: bool = True


class Consumer(Protocol):
    """A consumer in a group, subscribed to one topic."""

    before_revocation: Callable[[], None] | None
    """Called in a poll that may give up partitions, while they can still be committed; not where they are lost."""

    def poll(self, timeout: float, max_records: int) -> Poll:
        """Wait up to `timeout` seconds for records or a new assignment."""
        ...

    def committed(self, partitions: Iterable[int]) -> dict[int, Commit]:
        """The group's committed positions; partitions without one are left out."""
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Read an assigned partition from `offset` on."""
        ...

    def commit(self, offsets: Mapping[int, Commit]) -> None:
        """Commit synchronously, outside a transaction. Raises ConsumerFenced, LogUnavailable."""
        ...

    def lag(self) -> dict[int, int]:
        """For each partition being read, how many offsets of committed records lie beyond its position."""
        ...

    def close(self) -> None:
        """Leave the group at once, so that its partitions are reassigned; a static member keeps them for a time."""
        ...


class Producer(Protocol):
    """A producer. With a transactional id, records are sent between `begin` and `commit` only."""

    on_refusal: Callable[[Sent, Refusal], Sent] | None
    """What to write in place of a record that the log refuses, if that has a `cause`; the default, None, raises.

    All others are written as they were sent, and none twice. In a transaction all records have a `cause`, or none.
    """

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
        """Queue one record, which is written at the latest by `flush`. Partition None: chosen by the key.

        Blocks while too much is in flight.
        """
        ...

    def flush(self) -> None:
        """Return when all records sent are acknowledged; raise the first failure of any."""
        ...

    def begin(self) -> None:
        """Open a transaction."""
        ...

    def commit(self, offsets: Mapping[int, Commit], consumer: Consumer) -> None:
        """Flush, then commit records and the consumer's offsets atomically, under the generation of its last poll."""
        ...

    def abort(self) -> None:
        """Abort the open transaction."""
        ...

    def renew(self) -> None:
        """Forget what it knows of the topics that it has written to, as one of them was made anew; aborts what is open.

        To another topic of the same name it would go on with the numbers of records of the one before, and be refused.
        """
        ...

    def close(self) -> None:
        """Drop what is not acknowledged, and close."""
        ...


class EventLog(Protocol):
    """A connection to a partitioned log."""

    label: str
    """What the log is called in messages; holds no secrets."""
    timeout_s: float
    """Seconds after which a call that has not returned is taken to hang."""
    batch_s: float
    """Seconds that a batch of records may take from poll to commit: a part of a transaction's time-out."""

    def create_topic(self, topic: str, partitions: int, *, compacted: bool = False, any_time: bool = False) -> int:
        """Create the topic if it does not exist; return its number of partitions either way.

        With `any_time` it takes records of any time, whatever the log's default limits are.
        """
        ...

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics, with all of their records."""
        ...

    def topics(self) -> list[str]:
        """The names of all topics that may be seen, sorted; none of the log's own."""
        ...

    def partitions(self, topic: str) -> int:
        """A topic's number of partitions. Raises UnknownTopic."""
        ...

    def partition_of(self, key: bytes, partitions: int) -> int:
        """The partition, of so many, that a producer chooses by this key."""
        ...

    def topic_id(self, topic: str) -> str:
        """An id that changes when a topic is deleted and created again. Raises UnknownTopic."""
        ...

    def identities(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        """The identities of those of these topics that exist, looked up at once."""
        ...

    def topic_config(self, topic: str) -> TopicConfig:
        """A topic's configuration. Raises UnknownTopic; NotAuthorized where describing it is not allowed."""
        ...

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """A group's committed positions, without joining it; partitions without one are left out.

        Raises UnknownTopic.
        """
        ...

    def members(self, group: str) -> list[Member]:
        """The members of a group, without joining it; none where the log does not know them."""
        ...

    def remove_member(self, group: str, name: str) -> None:
        """Have a group go on at once without a member whose process has ended, instead of after its session timeout."""
        ...

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """Each partition's oldest and next offset, counting open transactions. Raises UnknownTopic."""
        ...

    def offsets_at(self, topic: str, timestamp: int) -> dict[int, int]:
        """Each partition's first offset with a timestamp of `timestamp` or later, else its end."""
        ...

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[Sequence[Record]]:
        """The committed records with start <= offset < stop, in order, in batches.

        Raises LogUnavailable if an open transaction or an unreachable log keeps it from reaching `stop`.
        """
        ...

    def read_partitions(
        self, topic: str, ranges: Mapping[int, Bounds], *, whole: bool = False
    ) -> Iterator[Sequence[Record]]:
        """The committed records of several partitions from `start` up to `end`, at once: batches of one partition each.

        The offsets must be within the log's. With `whole` nothing is Truncated. Raises LogUnavailable as `read` does.
        """
        ...

    def producer(self, transactional_id: str | None = None) -> Producer:
        """A producer; a transactional id fences the one before it and aborts that one's open transaction."""
        ...

    def consumer(self, group: str, topic: str, *, instance: str | None = None, static: bool = False) -> Consumer:
        """Join `group` on `topic`. `instance` names the member in the broker's lists and logs.

        A `static` member has it as its group instance id, and keeps its partitions over a restart within the session.
        """
        ...

    def close(self) -> None:
        """Close the connection, and the producers and consumers that are still open."""
        ...
