"""What a Kafka client is told of the cluster, and what it does."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from pipeline.log import Bounds, Commit, Consumer, Producer, Record


class Cluster(NamedTuple):
    """What a client is told of the cluster."""

    servers: Sequence[str]
    """host:port of each."""
    label: str
    partitions: Callable[[str], int]
    """A topic's number of partitions. Raises UnknownTopic: clients would wait for a missing topic."""
    committed: Callable[[str, str], dict[int, Commit]]
    """A group's committed positions in a topic, with their metadata."""
    stable_ends: Callable[[str, Collection[int]], dict[int, int]]
    """The last stable offset of each partition."""
    remove: Callable[[str, str], None]
    """Has a group go on without the member of an id. Raises LogError."""


class Client(Protocol):
    """What reads and writes records."""

    name: str
    """With its version."""

    def read_partitions(self, topic: str, ranges: Mapping[int, Bounds], *, whole: bool) -> Iterator[Sequence[Record]]:
        """As EventLog.read_partitions."""
        ...

    def producer(self, transactional_id: str | None) -> Producer:
        """As EventLog.producer."""
        ...

    def consumer(self, group: str, topic: str, *, instance: str | None, static: bool) -> Consumer:
        """As EventLog.consumer."""
        ...

    def close(self) -> None:
        """Close its readers."""
        ...
