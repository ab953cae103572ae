"""EventLog on Apache Kafka, for production.

Nothing outside this folder imports kafka. Its consumers and producers wait for a missing topic, so every topic is
looked up with the admin client first.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType, MemberToRemove
from kafka.partitioner.default import murmur2

from pipeline.log import Bounds, Commit, Consumer, Member, Producer, Record
from pipeline.log.kafka.client import admin, meaning, metadata_text, translated
from pipeline.log.kafka.clients import client_for
from pipeline.log.kafka.cluster import Cluster
from pipeline.log.kafka.connection_check import check_connection
from pipeline.log.kafka.topic_settings import ANY_TIME, SETTINGS, TIMES, topic_config
from pipeline.log.settings import KafkaSettings
from pipeline.log.topics import TopicConfig, TopicIdentity
from tidecast.errors import ConfigError, NotAuthorized, UnknownTopic

COMPACTED = {
    "cleanup.policy": "compact",
    # Only closed segments are compacted, and such a topic is always read as a whole: so its segments are small.
    "segment.bytes": str(32 << 20),
    "min.cleanable.dirty.ratio": "0.1",
    # A state has no event time, and the broker would refuse records of a machine whose clock is ahead.
    "message.timestamp.type": "LogAppendTime",
}


class KafkaLog:
    """EventLog on the Kafka at ``host:port[,host:port...]``. Raises ConfigError, LogUnavailable, NotAuthorized."""

    def __init__(self, address: str, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        servers = _servers(address)
        self._where = f"Kafka at {address}"
        self.timeout_s = max(kafka.delivery_s, kafka.stall_s) + kafka.request_s
        self.batch_s = kafka.transaction_s / 3
        bootstrap = [f"{host}:{port}" for host, port in servers]
        self._config: dict[str, Any] = {"bootstrap_servers": bootstrap, "client_id": "tidecast"}
        logger = logging.getLogger("kafka")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)  # what matters is raised
        check_connection(servers, kafka, self._where)
        with translated(self._where):
            self._admin = KafkaAdminClient(**admin(kafka), **self._config)
        self._client = client_for(
            kafka, Cluster(bootstrap, self._where, self.partitions, self.committed, self._stable_ends, self._remove)
        )
        self.label = f"{self._where}, by {self._client.name}"
        self._existing: set[str] = set()
        self._opened: list[Consumer | Producer] = []

    def create_topic(self, topic: str, partitions: int, *, compacted: bool = False, any_time: bool = False) -> int:
        """Create the topic if it does not exist; return its number of partitions once all have leaders."""
        self._existing.discard(topic)  # it may have been deleted since
        with contextlib.suppress(UnknownTopic):
            count = self.partitions(topic)
            self._existing.add(topic)
            return count
        with translated(f"{self._where}, creating topic {topic}"):
            try:
                self._create(topic, partitions, COMPACTED if compacted else ANY_TIME if any_time else {})
            except errors.InvalidConfigurationError:  # a broker before 3.6 has neither these settings nor the limits
                if compacted or not any_time:
                    raise
                self._create(topic, partitions, {})
        self._existing.add(topic)
        return self.partitions(topic)

    def _create(self, topic: str, partitions: int, settings: Mapping[str, str]) -> None:
        with contextlib.suppress(errors.TopicAlreadyExistsError):  # another process may have created it since
            self._admin.create_topics({topic: {"num_partitions": partitions, "configs": settings}})

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics, with all of their records."""
        names = list(topics)
        self._existing.difference_update(names)
        with translated(f"{self._where}, deleting topics"):
            self._admin.delete_topics(names)

    def topics(self) -> list[str]:
        """The names of all topics that may be seen, sorted, but Kafka's own."""
        with translated(f"{self._where}, listing topics"):
            found = self._retried(lambda: self._admin.list_topics())
        return sorted(name for name in found if not name.startswith("__"))

    def partitions(self, topic: str) -> int:
        """A topic's number of partitions. Raises UnknownTopic."""
        return len(self._describe(topic)["partitions"])

    def partition_of(self, key: bytes, partitions: int) -> int:
        """The partition, of so many, that Kafka's own clients choose by this key, and ours."""
        return int(murmur2(key) & 0x7FFFFFFF) % partitions

    def topic_id(self, topic: str) -> str:
        """The topic's UUID. Raises UnknownTopic."""
        return str(self._describe(topic)["topic_id"])

    def identities(self, topics: Iterable[str]) -> dict[str, TopicIdentity]:
        """The identities of those of these topics that exist, in one request."""
        doing, identities = f"{self._where}, looking up topics", dict[str, TopicIdentity]()
        with translated(doing):
            found = self._retried(lambda: self._admin.describe_topics(list(topics)))
        for each in found:
            error = errors.for_code(each["error_code"])
            if error is errors.NoError:
                identities[each["name"]] = TopicIdentity(str(each["topic_id"]), len(each["partitions"]))
            elif error is not errors.UnknownTopicOrPartitionError:
                raise meaning(error(), f"{doing}: {each['name']}")
        return identities

    def topic_config(self, topic: str) -> TopicConfig:
        """A topic's configuration. Raises UnknownTopic, NotAuthorized."""
        partitions, settings = self._describe(topic)["partitions"], self._settings(topic)
        with translated(f"{self._where}, looking up its brokers"):
            brokers = len(self._retried(lambda: self._admin.describe_cluster())["brokers"])
        replication = min(len(each["replica_nodes"]) for each in partitions)
        return topic_config(settings, replication, brokers)

    def _settings(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, (*SETTINGS, *TIMES))
        with translated(f"{self._where}, settings of {topic}"):
            found = self._retried(lambda: self._admin.describe_configs([resource], config_filter="all"))
        settings = {name: str(each["value"]) for name, each in found.get("topic", {}).get(topic, {}).items()}
        if not settings.keys() >= set(SETTINGS):  # the client does not report the reason
            raise NotAuthorized(f"topic {topic}: its settings can't be read, which needs the ACL DescribeConfigs")
        return settings

    def committed(self, group: str, topic: str) -> dict[int, Commit]:
        """A group's committed positions; partitions without one are left out. Raises UnknownTopic."""
        wanted = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]
        with translated(f"{self._where}, offsets of group {group}"):
            # The first such request that a cluster receives creates the topic __consumer_offsets.
            found = self._retried(lambda: self._admin.list_group_offsets({group: wanted})).get(group, {}).items()
        return {
            at.partition: Commit(each.offset, metadata_text(each.metadata)) for at, each in found if each.offset >= 0
        }

    def members(self, group: str) -> list[Member]:
        """The members of a group by client id, which is their instance's name, and host."""
        return [Member(each["client_id"], each["client_host"].lstrip("/")) for each in self._described(group)]

    def remove_member(self, group: str, name: str) -> None:
        """Have a group go on without the members of this client id."""
        self._remove(group, *(each["member_id"] for each in self._described(group) if each["client_id"] == name))

    def _remove(self, group: str, *member_ids: str) -> None:
        if member_ids:
            with translated(f"{self._where}, group {group} without {', '.join(member_ids)}"):
                self._admin.remove_group_members(group, [*map(MemberToRemove, member_ids)])

    def _described(self, group: str) -> Sequence[Any]:
        with translated(f"{self._where}, members of group {group}"):
            found = self._retried(lambda: self._admin.describe_groups([group])).get(group, {})
        members: Sequence[Any] = found.get("members", ())
        return members

    def _retried(self, request: Callable[[], Any], *, exists: bool = False) -> Any:
        """The response, requested again while brokers disconnect, are not ready, or do not know a topic that `exists`.

        Each time by a new client: an old one goes on asking a node that is gone until its metadata expires.
        """
        began = time.monotonic()
        deadline = began + self._kafka.delivery_s
        while True:
            try:
                return request()
            except errors.UnknownTopicOrPartitionError:
                if not exists or time.monotonic() > began + self._kafka.request_s:
                    raise
                time.sleep(0.02)
            except errors.RetriableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                with contextlib.suppress(errors.KafkaError):  # no broker is up: the request itself raises
                    self._admin, old = KafkaAdminClient(**admin(self._kafka), **self._config), self._admin
                    old.close()

    def _describe(self, topic: str) -> dict[str, Any]:
        # A new topic becomes known to one broker after another, and its leaders even later.
        deadline = time.monotonic() + (self._kafka.request_s if topic in self._existing else 0)
        while True:
            with translated(f"{self._where}, looking up topic {topic}"):
                (found,) = self._retried(lambda: self._admin.describe_topics([topic]))
            error = errors.for_code(found["error_code"])
            ready = error is errors.NoError and all(each["leader_id"] >= 0 for each in found["partitions"])
            if not ready and time.monotonic() < deadline:
                time.sleep(0.02)
            elif error is errors.NoError:
                return dict(found)
            else:
                raise meaning(error(), f"topic {topic}")

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """Each partition's oldest and next offset, counting open transactions. Raises UnknownTopic."""
        count = self.partitions(topic)
        starts, ends = (self._offsets(topic, count, spec) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST))
        return {partition: Bounds(starts[partition], ends[partition]) for partition in range(count)}

    def offsets_at(self, topic: str, timestamp: int) -> dict[int, int]:
        """Each partition's first offset with a timestamp of `timestamp` or later, else its end."""
        count = self.partitions(topic)
        found = self._offsets(topic, count, max(0, timestamp))
        ends = self._offsets(topic, count, OffsetSpec.LATEST)
        return {partition: offset if offset >= 0 else ends[partition] for partition, offset in found.items()}

    def _offsets(self, topic: str, count: int, spec: int) -> dict[int, int]:
        specs = {TopicPartition(topic, partition): spec for partition in range(count)}
        with translated(f"{self._where}, offsets of {topic}"):
            found = self._retried(lambda: self._admin.list_partition_offsets(specs), exists=topic in self._existing)
        return {where.partition: each.offset for where, each in found.items()}

    def _stable_ends(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        specs = {TopicPartition(topic, partition): OffsetSpec.LATEST for partition in partitions}
        with translated(f"{self._where}, offsets of {topic}"):
            found = self._retried(lambda: self._admin.list_partition_offsets(specs, IsolationLevel.READ_COMMITTED))
        return {where.partition: each.offset for where, each in found.items()}

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[Sequence[Record]]:
        """The committed records with start <= offset < stop, in order, in batches.

        Raises LogUnavailable if an open transaction or an unreachable log keeps it from reaching `stop`.
        """
        bounds = self.bounds(topic)
        if partition not in bounds:
            raise ConfigError(f"{topic} has {len(bounds)} partitions, none is {partition}")
        yield from self.read_partitions(topic, {partition: Bounds(max(start, bounds[partition].start), stop)})

    def read_partitions(
        self, topic: str, ranges: Mapping[int, Bounds], *, whole: bool = False
    ) -> Iterator[Sequence[Record]]:
        """The committed records of several partitions from `start` up to `end`: batches of one partition each."""
        return self._client.read_partitions(topic, ranges, whole=whole)

    def producer(self, transactional_id: str | None = None) -> Producer:
        """A producer; a transactional id fences the one before it and aborts that one's open transaction."""
        producer = self._client.producer(transactional_id)
        self._opened.append(producer)
        return producer

    def consumer(self, group: str, topic: str, *, instance: str | None = None, static: bool = False) -> Consumer:
        """Join `group` on `topic`; `instance` is the client id, with which the member id begins."""
        self.partitions(topic)
        consumer = self._client.consumer(group, topic, instance=instance, static=static)
        self._opened.append(consumer)
        return consumer

    def close(self) -> None:
        """Close the connection, and the producers and consumers that are still open."""
        with contextlib.ExitStack() as closing:  # each of them, even if one raises
            for each in (self._admin, self._client, *self._opened):
                closing.callback(each.close)


def _servers(address: str) -> list[tuple[str, int]]:
    servers = []
    for part in address.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or {"/", "@"} & set(host) or not port.isdecimal() or not 0 < int(port) < 65536:
            shown = "a text with an @" if "@" in address else repr(address)  # it may hold a password
            raise ConfigError(f"{shown} is not the address of a log: host:port[,host:port...] or sqlite:PATH")
        servers.append((host, int(port)))
    return servers
