"""Which client reads and writes records: kafka-python, or librdkafka where confluent-kafka is installed.

Whatever else is asked, of topics, offsets and groups, kafka-python asks.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple, Protocol

from pipeline.log import Bounds, Commit, Consumer, Producer, Record
from pipeline.log.settings import ClientName, KafkaSettings
from tidecast.errors import ConfigError


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


def preferred() -> ClientName:
    """The faster one of those installed."""
    return "kafka-python" if find_spec("confluent_kafka") is None else "librdkafka"


def client_for(kafka: KafkaSettings, cluster: Cluster) -> Client:
    """The client that these settings ask for. Raises ConfigError if it is not installed."""
    if (preferred() if kafka.client == "auto" else kafka.client) == "kafka-python":
        from pipeline.log.kafka.python import PythonClient

        return PythonClient(kafka, cluster)
    try:
        from pipeline.log.kafka.rdkafka import RdkafkaClient
    except ImportError as error:
        raise ConfigError(f"client: librdkafka needs confluent-kafka: pip install 'tidecast[fast]' ({error})") from None
    return RdkafkaClient(kafka, cluster)
