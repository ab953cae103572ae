"""A consumer in a Kafka group, by librdkafka.

The library joins the group again by itself, on a thread of its own. A partition leaves this member only in a poll,
though, when it is told so, unless the whole membership is lost; that takes the member's id or its generation. So a
commit is right, whatever the generation is by then, while the partition is owned and the id is that under which it was
assigned.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from typing import NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.log import Bounds, Commit, Poll, Record
from pipeline.log.kafka.assignment import Assignment
from pipeline.log.kafka.cluster import Client, Cluster
from pipeline.log.kafka.rdkafka.config import bounded, consumer, log_error, started, translated
from pipeline.log.kafka.rdkafka.records import Fetched, fetch, fetch_error, is_unreadable
from pipeline.log.settings import KafkaSettings
from tidecast.errors import ConsumerFenced, LogUnavailable

SLICE = 0.05
"""Seconds of one poll of the client, which does not return early when only the assignment changes."""
FAREWELL_S = 0.5
"""Seconds until a member that is leaving is removed on another connection too."""
AGAIN = 0.05
"""Seconds until a commit is tried again that met a rebalance."""
REBALANCING = (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION)
"""Errors of a commit that the generation overtook."""


class Membership(NamedTuple):
    """This member of its group, as the client has it."""

    metadata: bytes
    """Of the group, as a transaction takes it."""
    id: bytes
    joined: bool

    @classmethod
    def of(cls, consumer: Consumer) -> Self:
        """What it is now."""
        metadata: bytes = consumer.consumer_group_metadata()
        begins = len(b"CGMDv2:")
        generation, rest = metadata[begins : begins + 4], metadata[begins + 4 :]
        return cls(metadata, rest, int.from_bytes(generation, sys.byteorder, signed=True) >= 0)


def outlast(attempt: Callable[[], None], seconds: float) -> None:
    """Commit, again where a rebalance of the group came between: the client has the new generation a little later."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except KafkaException as error:
            if error.args[0].code() not in REBALANCING or time.monotonic() > deadline:
                raise
        time.sleep(AGAIN)


class RdkafkaConsumer:
    """One consumer in a group."""

    def __init__(
        self,
        kafka: KafkaSettings,
        cluster: Cluster,
        other: Client,
        group: str,
        topic: str,
        *,
        instance: str | None,
        static: bool,
    ) -> None:
        """`other` reads what this one can't."""
        self.before_revocation: Callable[[], None] | None = None
        self._kafka, self._cluster, self._other = kafka, cluster, other
        self._group, self._topic, self._static = group, topic, static
        self._doing = f"group {group} on {topic}"
        self._assignment = Assignment()
        self._positions: dict[int, int] = {}
        """The next offset of each partition that is being read."""
        self._failed: Message | None = None
        config = {"group.id": group, "client.id": instance or "tidecast"}
        static_id = {"group.instance.id": instance} if static else {}
        with translated(self._doing):
            self._consumer = Consumer({**consumer(kafka, cluster), **config, **static_id})
            self._consumer.subscribe([topic], on_assign=self._gained, on_revoke=self._revoked, on_lost=self._gone)
        self._member = Membership.of(self._consumer)

    def poll(self, timeout: float, max_records: int) -> Poll:
        """Wait up to `timeout` seconds for records or a new assignment."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, min(SLICE, deadline - time.monotonic()))
            records = self._fetch(left, max_records)
            if records or self._assignment.changed or time.monotonic() >= deadline:
                break
        if not records or not self._member.joined:
            self._member = Membership.of(self._consumer)
        assigned, revoked = self._assignment.take()
        joined = self._member.joined
        return Poll(assigned, revoked, records, rebalancing=not joined, joined=joined)

    def _fetch(self, timeout: float, most: int) -> Mapping[int, Sequence[Record]]:
        if self._failed is not None:
            failed, self._failed = self._failed, None
            partition = failed.partition()
            if failed.topic() is not None and partition not in self._positions:
                return {}  # it is another member's trouble now
            if is_unreadable(failed):
                return self._read_otherwise(partition, most)
            raise fetch_error(failed, self._topic, self._doing)
        with translated(self._doing):
            fetched = Fetched(fetch(self._consumer, timeout, most), self._topic)
        moved = self._assignment.moved
        records = {partition: own for partition, own in fetched.records.items() if partition not in moved}
        self._positions |= {partition: own[-1].offset + 1 for partition, own in records.items()}
        for partition, end in fetched.ends.items():
            if partition in self._positions:
                self._positions[partition] = max(end, self._positions[partition])
        self._failed = fetched.failure  # the records before it count as read: they come first
        return records if records or self._failed is None or self._assignment.changed else self._fetch(0, most)

    def _read_otherwise(self, partition: int, most: int) -> Mapping[int, Sequence[Record]]:
        """The next records of a partition, of which the next batch is unreadable."""
        ahead = Bounds(self._positions[partition], self._cluster.stable_ends(self._topic, [partition])[partition])
        for batch in self._other.read_partitions(self._topic, {partition: ahead}, whole=False):
            records = batch[:most]
            self.seek(partition, records[-1].offset + 1)
            return {partition: records}
        return {}

    def _gained(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        client.incremental_assign([])  # the client reads what it is assigned at once: so each is when it is sought
        self._assignment.gain(each.partition for each in partitions)

    def _revoked(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if self.before_revocation:
            self.before_revocation()
        self._gone(client, partitions)

    def _gone(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        client.incremental_unassign(
            [each for each in partitions if self._positions.pop(each.partition, None) is not None]
        )
        self._assignment.lose(each.partition for each in partitions)

    def committed(self, partitions: Iterable[int]) -> dict[int, Commit]:
        """The group's committed positions. Waits for an open transaction that will commit one.

        kafka-python asks for them then: of metadata that no zero byte ends, as any other client commits it, librdkafka
        returns what lies behind it in memory, too.
        """
        wanted = [TopicPartition(self._topic, partition) for partition in partitions]
        if not wanted:
            return {}
        with translated(f"{self._doing}, committed offsets"):
            found = self._consumer.committed(wanted, self._kafka.stall_s)
        for each in found:
            if each.error is not None:
                raise log_error(each.error, f"{self._doing}, committed offsets")
        known = self._cluster.committed(self._group, self._topic)
        return {each.partition: known[each.partition] for each in found if each.partition in known}

    def seek(self, partition: int, offset: int) -> None:
        """Read an assigned partition from `offset` on."""
        if partition not in self._assignment.owned:
            raise ValueError(f"partition {partition} is not assigned")
        where = TopicPartition(self._topic, partition, offset)
        with translated(f"{self._doing}, seek"):
            if partition in self._positions:
                self._consumer.seek(where)
            else:
                self._consumer.incremental_assign([where])
        self._positions[partition] = offset
        if self._failed is not None and self._failed.partition() == partition:
            self._failed = None

    def commit(self, offsets: Mapping[int, Commit]) -> None:
        """Commit synchronously, outside a transaction. Raises ConsumerFenced, LogUnavailable."""

        def attempt() -> None:
            self.generation(offsets)
            # on this thread: in a callback the client would wait for the end of that otherwise
            for each in self._consumer.commit(offsets=self.positions(offsets), asynchronous=False) or ():
                if each.error is not None:
                    raise KafkaException(each.error)

        with translated(f"{self._doing}, commit"):
            outlast(attempt, self._kafka.delivery_s)

    def generation(self, offsets: Mapping[int, Commit]) -> bytes:
        """The group's metadata as it is now, if this member may commit `offsets` with it.

        Raises ConsumerFenced for partitions that were revoked or lost, LogUnavailable while it is not in the group.
        """
        now = Membership.of(self._consumer)
        if not offsets.keys() <= self._assignment.owned or now.id != self._member.id:
            raise ConsumerFenced(f"{self._doing}: partitions {sorted(offsets)} are no longer assigned to this member")
        if not now.joined:
            raise LogUnavailable(f"{self._doing}: a rebalance is in progress")
        return now.metadata

    def positions(self, offsets: Mapping[int, Commit]) -> list[TopicPartition]:
        """`offsets` in the types of the client."""
        return [
            TopicPartition(self._topic, partition, commit.offset, commit.metadata)
            for partition, commit in offsets.items()
        ]

    def lag(self) -> dict[int, int]:
        """For each partition being read, how many offsets lie between its position and the last stable offset."""
        positions = self._positions
        ends = self._cluster.stable_ends(self._topic, list(positions)) if positions else {}
        return {partition: max(0, end - positions[partition]) for partition, end in ends.items()}

    def close(self) -> None:
        """Leave the group at once, so that its partitions are reassigned; a static member keeps them for a time."""
        self.before_revocation = None  # whoever closes it has committed what could be
        try:
            member = self._consumer.memberid()
        except RuntimeError:  # it is closed
            return
        closed = started(self._consumer.close)
        with translated(f"{self._doing}, leaving"):
            wait([closed], FAREWELL_S)
            if member and not self._static:  # the broker answers a request to join first, which may wait for others
                bounded(lambda: self._cluster.remove(self._group, member), self._kafka.request_s)
            bounded(closed.result, self._kafka.request_s)
