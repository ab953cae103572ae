"""The records of a cluster by librdkafka. Nothing outside this folder imports confluent_kafka."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import confluent_kafka

from pipeline.log import Bounds, Record
from pipeline.log.kafka.cluster import Cluster
from pipeline.log.kafka.python import PythonClient
from pipeline.log.kafka.rdkafka.consumer import RdkafkaConsumer
from pipeline.log.kafka.rdkafka.producer import RdkafkaProducer
from pipeline.log.kafka.rdkafka.reader import Reader
from pipeline.log.settings import KafkaSettings


class RdkafkaClient:
    """librdkafka, by confluent-kafka."""

    def __init__(self, kafka: KafkaSettings, cluster: Cluster) -> None:
        self.name = f"librdkafka {confluent_kafka.libversion()[0]}"
        self._kafka, self._cluster = kafka, cluster
        self._python = PythonClient(kafka, cluster)
        """Reads what librdkafka can't."""
        self._readers: list[Reader] = []

    def read_partitions(self, topic: str, ranges: Mapping[int, Bounds], *, whole: bool) -> Iterator[Sequence[Record]]:
        """The committed records of several partitions from `start` up to `end`: batches of one partition each."""
        reader = self._readers.pop() if self._readers else Reader(self._kafka, self._cluster, self._python)
        try:
            yield from reader.read(topic, ranges, whole=whole)
        finally:
            self._readers.append(reader)

    def producer(self, transactional_id: str | None) -> RdkafkaProducer:
        """A producer; a transactional id fences the one before it and aborts that one's open transaction."""
        return RdkafkaProducer(self._kafka, self._cluster, transactional_id)

    def consumer(self, group: str, topic: str, *, instance: str | None, static: bool) -> RdkafkaConsumer:
        """Join `group` on `topic`; `instance` is the client id, with which the member id begins."""
        return RdkafkaConsumer(self._kafka, self._cluster, self._python, group, topic, instance=instance, static=static)

    def close(self) -> None:
        """Close its readers."""
        with contextlib.ExitStack() as closing:
            closing.callback(self._python.close)
            for each in self._readers:
                closing.callback(each.close)
