"""What a log knows of a topic as a whole."""

from typing import NamedTuple


class TopicIdentity(NamedTuple):
    """What tells a topic from another one of its name."""

    id: str
    """Changes when the topic is deleted and created again."""
    partitions: int
    """Its number of partitions."""


class TopicConfig(NamedTuple):
    """A topic's retention, replication and limits. None stands for no limit."""

    compacted: bool
    """Whether older records of a key are removed, which leaves gaps between offsets."""
    retention_ms: int | None
    """The age at which a record is deleted."""
    retention_bytes: int | None
    """The size of a partition from which on its oldest records are deleted."""
    replication: int
    """Replicas of each partition; the fewest, where partitions differ."""
    min_insync: int
    """In-sync replicas that a record needs to be acknowledged."""
    max_message_bytes: int
    """The largest batch of records that is accepted, and so the largest record."""
    brokers: int
    """Brokers of the cluster."""
    append_time: bool = False
    """Whether the log gives each record the time of its arrival, instead of keeping the writer's."""
    oldest_ms: int | None = None
    """How far a record's time may lie before its arrival; no limit with `append_time`."""
    ahead_ms: int | None = None
    """How far it may lie after its arrival; no limit with `append_time`."""
