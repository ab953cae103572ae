"""Records of partitions, outside of any group."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.log import Bounds, Record
from pipeline.log.kafka.cluster import Client, Cluster
from pipeline.log.kafka.rdkafka.config import CLOSE_S, bounded, reader, translated
from pipeline.log.kafka.rdkafka.records import Fetched, fetch, fetch_error, is_unreadable
from pipeline.log.settings import KafkaSettings
from tidecast.errors import LogUnavailable

MOST = 5000
"""Records of one batch."""
LOOK_S = 1.0
"""Most seconds that a topic is looked for before it is read."""


class Reader:
    """Reads one range of offsets after another."""

    def __init__(self, kafka: KafkaSettings, cluster: Cluster, other: Client) -> None:
        """`other` reads what this one can't."""
        self._stall_s, self._other = kafka.stall_s, other
        self._doing, self._topic = f"{cluster.label}, reading", ""
        with translated(self._doing):
            self._consumer = Consumer(reader(kafka, cluster))

    def read(self, topic: str, ranges: Mapping[int, Bounds], *, whole: bool) -> Iterator[Sequence[Record]]:
        """The committed records of several partitions from `start` up to `end`: batches of one partition each."""
        left = {partition: bounds.end for partition, bounds in ranges.items() if bounds.start < bounds.end}
        if not left:
            return
        positions = {partition: ranges[partition].start for partition in left}
        self._find(topic)
        with translated(self._doing):
            self._consumer.assign([TopicPartition(topic, partition, at) for partition, at in positions.items()])
            try:
                yield from self._read(topic, left, positions, whole=whole)
            finally:
                self._consumer.unassign()

    def _find(self, topic: str) -> None:
        """Look for a topic now, if it is another one: by itself the client looks once a second."""
        if topic != self._topic:
            with contextlib.suppress(KafkaException):  # what is wrong is said when it is read
                self._consumer.list_topics(topic, LOOK_S)
            self._topic = topic

    def _read(
        self, topic: str, left: dict[int, int], positions: dict[int, int], *, whole: bool
    ) -> Iterator[Sequence[Record]]:
        deadline = time.monotonic() + self._stall_s
        while left:
            fetched = Fetched(fetch(self._consumer, 0.5, MOST), topic, whole=whole)
            if fetched.records or fetched.ends:
                deadline = time.monotonic() + self._stall_s
            elif time.monotonic() > deadline:
                at = min(left)
                raise LogUnavailable(f"{topic}/{at} can't be read past {positions[at]}, up to {left[at]}")
            for partition, records in fetched.records.items():
                positions[partition] = records[-1].offset + 1
                if wanted := [record for record in records if record.offset < left.get(partition, 0)]:
                    yield wanted
            for partition, end in fetched.ends.items():
                positions[partition] = max(positions[partition], end)
            # Nobody gave a reader's group the right to be asked for, and it is never needed.
            failure = fetched.failure
            if failure is not None and is_unreadable(failure):
                at = failure.partition()
                yield from self._other.read_partitions(topic, {at: Bounds(positions[at], left[at])}, whole=whole)
                positions[at] = left[at]
            elif failure is not None and failure.error().code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise fetch_error(failure, topic, self._doing)
            self._leave_out([partition for partition in left if positions[partition] >= left[partition]], topic, left)

    def _leave_out(self, done: Sequence[int], topic: str, left: dict[int, int]) -> None:
        """Fetch no more of partitions that are read up to their ends."""
        for partition in done:
            del left[partition]
        if done and left:
            self._consumer.incremental_unassign([TopicPartition(topic, partition) for partition in done])

    def close(self) -> None:
        """Close it."""
        with translated(self._doing):
            bounded(self._consumer.close, CLOSE_S)
