"""Which client reads and writes records: kafka-python, or librdkafka where confluent-kafka is installed.

Whatever else is asked, of topics, offsets and groups, kafka-python asks.
"""

from importlib.util import find_spec

from pipeline.log.kafka.cluster import Client, Cluster
from pipeline.log.settings import ClientName, KafkaSettings
from tidecast.errors import ConfigError


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
