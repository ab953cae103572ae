"""The records of a cluster by kafka-python."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

import kafka as kafka_python
from kafka import KafkaConsumer, TopicPartition

from pipeline.log import Bounds, Record
from pipeline.log.kafka.batches import TruncatingDeserializer
from pipeline.log.kafka.client import reader, translated
from pipeline.log.kafka.cluster import Cluster
from pipeline.log.kafka.consumer import KafkaGroupConsumer
from pipeline.log.kafka.producer import KafkaLogProducer
from pipeline.log.settings import KafkaSettings
from tidecast.errors import LogUnavailable


class PythonClient:
    """kafka-python."""

    def __init__(self, kafka: KafkaSettings, cluster: Cluster) -> None:
        self.name = f"kafka-python {kafka_python.__version__}"
        self._kafka, self._cluster = kafka, cluster
        self._config = {"bootstrap_servers": list(cluster.servers), "client_id": "tidecast"}
        self._deserializer = TruncatingDeserializer()
        self._consumer = self._config | dict.fromkeys(("key_deserializer", "value_deserializer"), self._deserializer)
        self._readers: list[KafkaConsumer] = []

    def read_partitions(self, topic: str, ranges: Mapping[int, Bounds], *, whole: bool) -> Iterator[Sequence[Record]]:
        """The committed records of several partitions from `start` up to `end`: batches of one partition each."""
        left = {TopicPartition(topic, each): bounds.end for each, bounds in ranges.items() if bounds.start < bounds.end}
        if not left:
            return
        if whole:
            self._deserializer.whole.add(topic)
        with self._reader() as reader:
            reader.assign(list(left))
            for where in left:
                reader.seek(where, ranges[where.partition].start)
            deadline, before = time.monotonic() + self._kafka.stall_s, 0
            while left:
                for where, records in reader.poll(timeout_ms=500, max_records=5000).items():
                    if wanted := [record for record in records if record.offset < left[where]]:
                        yield wanted
                positions = {where: reader.position(where) for where in left}
                if (read := sum(positions.values())) > before:
                    deadline, before = time.monotonic() + self._kafka.stall_s, read
                elif time.monotonic() > deadline:
                    where = min(left)
                    stuck = f"{topic}/{where.partition} can't be read past {positions[where]}, up to {left[where]}"
                    raise LogUnavailable(stuck)
                before -= _finish(reader, left, positions)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[KafkaConsumer]:
        with translated(f"{self._cluster.label}, reading"):
            found = self._readers.pop() if self._readers else KafkaConsumer(**reader(self._kafka), **self._consumer)
            try:
                yield found
            finally:
                self._readers.append(found)

    def producer(self, transactional_id: str | None) -> KafkaLogProducer:
        """A producer; a transactional id fences the one before it and aborts that one's open transaction."""
        config = self._config | ({} if transactional_id is None else {"client_id": transactional_id})
        return KafkaLogProducer(self._kafka, config, transactional_id, self._cluster.partitions)

    def consumer(self, group: str, topic: str, *, instance: str | None, static: bool) -> KafkaGroupConsumer:
        """Join `group` on `topic`; `instance` is the client id, with which the member id begins."""
        config = self._consumer | ({} if instance is None else {"client_id": instance})
        static_id = {"group_instance_id": instance} if static else {}
        return KafkaGroupConsumer(self._kafka, config | static_id, group, topic)

    def close(self) -> None:
        """Close its readers."""
        with contextlib.ExitStack() as closing:
            for each in self._readers:
                closing.callback(each.close)


def _finish(reader: KafkaConsumer, left: dict[TopicPartition, int], positions: Mapping[TopicPartition, int]) -> int:
    """Leave out the partitions that are read up to their ends; the sum of their positions.

    They are not paused: the client might keep what it has fetched of them for ever, and fetch nothing more.
    """
    done = [where for where in left if positions[where] >= left[where]]
    for where in done:
        del left[where]
    if done and left:
        reader.assign(list(left))
    return sum(positions[where] for where in done)
