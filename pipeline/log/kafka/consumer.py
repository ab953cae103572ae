"""A consumer in a Kafka group: cooperative assignment, and no records before the partition has been sought."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import MemberState

from pipeline.log import Commit, Poll, Record
from pipeline.log.kafka.assignment import Assignment
from pipeline.log.kafka.client import consumer, metadata_text, translated
from pipeline.log.settings import KafkaSettings
from tidecast.errors import ConsumerFenced, LogUnavailable

SLICE = 0.1
"""Seconds of one poll of the client, which does not return early when only the assignment changes."""
TURN = 256
"""Records of a partition before it is another's turn."""
REBALANCE = 10.0
"""Seconds that a poll may exceed its timeout until a rebalance is complete."""


class KafkaGroupConsumer:
    """One consumer in a group; a static member if the config holds a group_instance_id."""

    def __init__(self, kafka: KafkaSettings, config: Mapping[str, Any], group: str, topic: str) -> None:
        self.before_revocation: Callable[[], None] | None = None
        self._kafka = kafka
        self._topic = topic
        self._doing = f"group {group} on {topic}"
        self._failed: Exception | None = None
        self._assignment = Assignment()
        strategy = (CooperativeStickyAssignor,)
        with translated(self._doing):
            settings = {**consumer(kafka), **config, "group_id": group, "partition_assignment_strategy": strategy}
            self._consumer = KafkaConsumer(**settings)
            self._consumer.subscribe([topic], listener=_Listener(self._consumer, self._assignment))
        self._coordinator = self._consumer._coordinator
        self._join, self._coordinator.ensure_active_group = self._coordinator.ensure_active_group, self._join_again
        self._reset, self._coordinator.reset_generation = self._coordinator.reset_generation, self._out_of_group
        self._generation = self._consumer.group_metadata()

    def _join_again(self, timeout_ms: float | None = None) -> bool:
        """What the client calls in a poll to join, and to join again: the first time, this member owns all it did."""
        if self._assignment.owned and self.before_revocation and not self._coordinator.rejoining:
            self.before_revocation()
        return bool(self._join(timeout_ms))

    def _out_of_group(self, member_id: str = "") -> None:
        """What the client calls when it is no member any more: it looks what it lost only as it begins to join, though
        it may hear of it while it does, and would go on with what it is assigned again.
        """
        self._reset(member_id)
        self._coordinator.rejoining = False

    def poll(self, timeout: float, max_records: int) -> Poll:
        """Wait up to `timeout` seconds for records or a new assignment."""
        until = deadline = time.monotonic() + timeout
        records: Mapping[TopicPartition, Sequence[Record]] = {}
        while not records and not self._assignment.changed:
            left = max(0.0, min(SLICE, until - time.monotonic()))
            with translated(self._doing):
                records = self._poll_once(left, max_records)
            self._generation = self._consumer.group_metadata()
            if self._generation.state == MemberState.REBALANCING:
                # The client forgets a rebalance for new partitions that outlasts its poll, and repeats one that ends
                # between two polls. Nothing can be committed before it is complete either.
                self._coordinator.request_rejoin()
                until = deadline + REBALANCE
            else:
                until = deadline
            if time.monotonic() >= until:
                break
        assigned, revoked = self._assignment.take()
        by_partition = {where.partition: batch for where, batch in records.items()}
        generation = self._generation
        rebalancing, joined = generation.state == MemberState.REBALANCING, generation.generation_id >= 0
        return Poll(assigned, revoked, by_partition, rebalancing, joined)

    def _poll_once(self, timeout: float, max_records: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """Records of several partitions, if there are any: the client itself would empty one after the other."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        reading = len(self._assignment.owned)
        if reading < 2 or max_records <= TURN:
            return self._consumer.poll(timeout_ms=timeout * 1000, max_records=max_records)  # type: ignore[no-any-return]
        turn = max(TURN, max_records // reading)
        self._unblock()
        records: dict[TopicPartition, list[Record]] = self._consumer.poll(timeout_ms=timeout * 1000, max_records=turn)
        if not records or self._assignment.changed:
            return records
        had: list[TopicPartition] = []
        new = list(records)
        for _ in range(2 * reading):  # one call puts aside what was paused, the next looks at another one
            self._consumer.pause(*new)
            had += new
            new = self._add_fetched(records, min(turn, max_records - sum(map(len, records.values()))))
        self._consumer.resume(*had)
        self._add_fetched(records, max_records - sum(map(len, records.values())))
        return records

    def _unblock(self) -> None:
        """Let the client go on with partitions that were paused: it doesn't after it has used up another one's."""
        fetcher = self._consumer._fetcher
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None

    def _add_fetched(self, records: dict[TopicPartition, list[Record]], most: int) -> list[TopicPartition]:
        """Add records that the client has fetched already, of partitions that are not paused; which ones."""
        if most <= 0 or self._failed is not None:
            return []
        self._unblock()
        try:
            fetched, _ = self._consumer._fetcher.fetched_records(most)
        except Exception as error:  # the records so far count as read: they come first
            self._failed = error
            return []
        for where, batch in fetched.items():
            records.setdefault(where, []).extend(batch)
        return list(fetched)

    def committed(self, partitions: Iterable[int]) -> dict[int, Commit]:
        """The group's committed positions. Waits for an open transaction that will commit one."""
        wanted = [TopicPartition(self._topic, partition) for partition in partitions]
        with translated(f"{self._doing}, committed offsets"):
            # The client's own method takes one partition, a request each.
            timeout_ms = int(self._kafka.stall_s * 1000)
            found = self._coordinator.fetch_committed_offsets(wanted, timeout_ms=timeout_ms)
        return {where.partition: Commit(each.offset, metadata_text(each.metadata)) for where, each in found.items()}

    def seek(self, partition: int, offset: int) -> None:
        """Read an assigned partition from `offset` on."""
        where = TopicPartition(self._topic, partition)
        self._consumer.seek(where, offset)
        self._consumer.resume(where)

    def commit(self, offsets: Mapping[int, Commit]) -> None:
        """Commit synchronously, outside a transaction. Raises ConsumerFenced, LogUnavailable."""
        self.generation(offsets)
        with translated(f"{self._doing}, commit"):
            self._consumer.commit(self.positions(offsets), timeout_ms=int(self._kafka.delivery_s * 1000))

    def generation(self, offsets: Mapping[int, Commit]) -> Any:
        """The generation of the last poll, if this member may commit `offsets` in it.

        Raises ConsumerFenced for partitions that the poll reported as revoked, LogUnavailable during a rebalance.
        """
        if self._generation.generation_id < 0 or not offsets.keys() <= self._assignment.owned:
            raise ConsumerFenced(f"{self._doing}: partitions {sorted(offsets)} are no longer assigned to this member")
        if self._generation.state == MemberState.REBALANCING:
            raise LogUnavailable(f"{self._doing}: a rebalance is in progress")
        return self._generation

    def positions(self, offsets: Mapping[int, Commit]) -> dict[TopicPartition, OffsetAndMetadata]:
        """`offsets` in the types of the client."""
        return {
            TopicPartition(self._topic, partition): OffsetAndMetadata(commit.offset, commit.metadata, -1)
            for partition, commit in offsets.items()
        }

    def lag(self) -> dict[int, int]:
        """For each partition being read, how many offsets lie between its position and the last stable offset."""
        reading = list(self._consumer.assignment() - self._consumer.paused())
        with translated(f"{self._doing}, end offsets"):
            ends = self._consumer.end_offsets(reading)
            return {where.partition: end - self._consumer.position(where) for where, end in ends.items()}

    def close(self) -> None:
        """Leave the group at once, so that its partitions are reassigned; a static member keeps them for a time."""
        with translated(f"{self._doing}, leaving"):
            self._consumer.close(timeout_ms=int(self._kafka.request_s * 1000))


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Records rebalances, and pauses new partitions until they are sought. Runs on the network thread."""

    def __init__(self, consumer: KafkaConsumer, assignment: Assignment) -> None:
        self._consumer = consumer
        self._assignment = assignment

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        for where in assigned:
            self._consumer.pause(where)
            self._consumer.seek(where, 0)  # without a position, poll looks up the commit, and may raise
        self._assignment.gain(where.partition for where in assigned)

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._assignment.lose(where.partition for where in revoked)
