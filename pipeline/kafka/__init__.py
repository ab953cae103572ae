"""EventLog on Apache Kafka: the one for production.

Nothing outside this folder imports kafka. Its consumers and producers create a topic that is missing just by
asking for it, so every topic is looked up with the admin client first.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, OffsetSpec, TopicPartition, errors

from pipeline.kafka.client import CLIENT, DELIVERY, READER, REQUEST, STALL, meaning, translated
from pipeline.kafka.member import KafkaMember
from pipeline.kafka.writer import KafkaWriter
from pipeline.log import Bounds, LogUnavailable, Member, Record, UnknownTopic, Writer

CONNECT = 3.0
"""Seconds that a broker may take to accept the first connection."""

# Only closed segments are compacted, and whoever reads such a topic reads it whole: so they are small.
COMPACTED = {"cleanup.policy": "compact", "segment.bytes": str(32 << 20), "min.cleanable.dirty.ratio": "0.1"}


class KafkaLog:
    """EventLog on the Kafka at ``host:port[,host:port...]``. Raises ValueError, LogUnavailable."""

    def __init__(self, address: str) -> None:
        servers = _servers(address)
        self.label = f"Kafka at {address}"
        self.patience = max(DELIVERY, STALL) + REQUEST
        self._config = {"bootstrap_servers": [f"{host}:{port}" for host, port in servers], "client_id": "tidecast"}
        logger = logging.getLogger("kafka")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)  # what matters comes as an exception
        _knock(servers, self.label)
        with translated(self.label):
            self._admin = KafkaAdminClient(**CLIENT, **self._config)
        self._created: set[str] = set()
        self._readers: list[KafkaConsumer] = []
        self._opened: list[Member | Writer] = []

    def create_topic(self, topic: str, partitions: int, *, compacted: bool = False) -> int:
        """Create the topic if it is missing; return how many partitions it has, once they have leaders."""
        with contextlib.suppress(UnknownTopic):
            return self.partitions(topic)
        wanted = {"num_partitions": partitions, "configs": COMPACTED if compacted else {}}
        # Somebody else may have made it in between.
        with translated(f"{self.label}, creating topic {topic}"), contextlib.suppress(errors.TopicAlreadyExistsError):
            self._admin.create_topics({topic: wanted})
        self._created.add(topic)
        return self.partitions(topic)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Raises UnknownTopic."""
        return len(self._describe(topic)["partitions"])

    def topic_id(self, topic: str) -> str:
        """The topic's UUID. Raises UnknownTopic."""
        return str(self._describe(topic)["topic_id"])

    def _describe(self, topic: str) -> dict[str, Any]:
        # A new topic becomes known to one broker after the other, and its leaders later still.
        deadline = time.monotonic() + (REQUEST if topic in self._created else 0)
        while True:
            with translated(f"{self.label}, looking up topic {topic}"):
                (found,) = self._admin.describe_topics([topic])
            error = errors.for_code(found["error_code"])
            ready = error is errors.NoError and all(each["leader_id"] >= 0 for each in found["partitions"])
            if not ready and time.monotonic() < deadline:
                time.sleep(0.02)
            elif error is errors.NoError:
                return dict(found)
            else:
                raise meaning(error(), f"topic {topic}")

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """Each partition's oldest and next offset, open transactions included. Raises UnknownTopic."""
        count = self.partitions(topic)
        starts, ends = (self._offsets(topic, count, spec) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST))
        return {partition: Bounds(starts[partition], ends[partition]) for partition in range(count)}

    def offsets_at(self, topic: str, timestamp: int) -> dict[int, int]:
        """Each partition's first offset whose record is at `timestamp` or later, else its end."""
        count = self.partitions(topic)
        found = self._offsets(topic, count, max(0, timestamp))
        ends = self._offsets(topic, count, OffsetSpec.LATEST)
        return {partition: offset if offset >= 0 else ends[partition] for partition, offset in found.items()}

    def _offsets(self, topic: str, count: int, spec: int) -> dict[int, int]:
        specs = {TopicPartition(topic, partition): spec for partition in range(count)}
        with translated(f"{self.label}, offsets of {topic}"):
            found = self._admin.list_partition_offsets(specs)
        return {where.partition: each.offset for where, each in found.items()}

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[Sequence[Record]]:
        """The committed records with start <= offset < stop, in order, in batches; then end.

        Raises LogUnavailable if an open transaction or an unreachable log keeps it from passing `stop`.
        """
        where = TopicPartition(topic, partition)
        bounds = self.bounds(topic)
        if partition not in bounds:
            raise ValueError(f"{topic} has {len(bounds)} partitions, none is {partition}")
        with self._reader() as reader:
            reader.assign([where])
            reader.seek(where, max(start, bounds[partition].start))
            deadline = time.monotonic() + STALL
            while (position := reader.position(where)) < stop:
                records = self._fetched(reader, where)
                if reader.position(where) > position:
                    deadline = time.monotonic() + STALL
                elif time.monotonic() > deadline:
                    raise LogUnavailable(f"{topic}/{partition} can't be read past {position}, short of {stop}")
                if wanted := [record for record in records if record.offset < stop]:
                    yield wanted

    def _fetched(self, reader: KafkaConsumer, where: TopicPartition) -> Sequence[Record]:
        try:
            found: Sequence[Record] = reader.poll(timeout_ms=500, max_records=5000).get(where, [])
        except errors.OffsetOutOfRangeError:
            # A leader that has just been elected may say so of an offset that it has.
            if self.bounds(where.topic)[where.partition].start > reader.position(where):
                raise
            return []
        return found

    @contextlib.contextmanager
    def _reader(self) -> Iterator[KafkaConsumer]:
        with translated(f"{self.label}, reading"):
            reader = self._readers.pop() if self._readers else KafkaConsumer(**READER, **self._config)
            try:
                yield reader
            finally:
                self._readers.append(reader)

    def writer(self, transactional_id: str | None = None) -> Writer:
        """A producer; a transactional id fences its predecessor and aborts that one's open transaction."""
        config = self._config | ({} if transactional_id is None else {"client_id": transactional_id})
        writer = KafkaWriter(config, transactional_id, self.partitions)
        self._opened.append(writer)
        return writer

    def join(self, group: str, topic: str, *, instance: str | None = None, static: bool = False) -> Member:
        """Become a member of `group` on `topic`; `instance` is its client id, with which the member id begins."""
        self.partitions(topic)
        config = self._config | ({} if instance is None else {"client_id": instance})
        member = KafkaMember(config | ({"group_instance_id": instance} if static else {}), group, topic)
        self._opened.append(member)
        return member

    def close(self) -> None:
        """Close the connection and everything it opened that is still open."""
        with contextlib.ExitStack() as closing:  # each of them, whatever one raises
            for each in (self._admin, *self._readers, *self._opened):
                closing.callback(each.close)


def _servers(address: str) -> list[tuple[str, int]]:
    servers = []
    for part in address.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or {"/", "@"} & set(host) or not port.isdecimal() or not 0 < int(port) < 65536:
            shown = "with @" if "@" in address else repr(address)  # it may hold a password
            raise ValueError(f"{shown} is no log's address: host:port[,host:port...] or sqlite:PATH")
        servers.append((host, int(port)))
    return servers


def _knock(servers: Sequence[tuple[str, int]], label: str) -> None:
    """Say at once, and why, that nothing answers: the client itself tries for long and keeps the reason."""
    reasons = []
    for host, port in servers:
        try:
            socket.create_connection((host.strip("[]"), port), CONNECT).close()
        except OSError as error:
            reasons.append(f"{host}:{port}: {error.strerror or error}")
        else:
            return
    raise LogUnavailable(f"{label} does not answer ({', '.join(reasons)})")
