"""Which client of Kafka is used, and how that is chosen."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from pipeline.log.connect import connect
from pipeline.log.kafka import clients
from pipeline.log.settings import ClientName, KafkaSettings
from tidecast.errors import ConfigError

NOT_INSTALLED = r"client: librdkafka needs confluent-kafka: pip install 'tidecast\[fast\]'"


@pytest.fixture
def without_librdkafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.log.kafka.rdkafka", None)


@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_a_log_says_which_client_it_has(
    kafka_server: tuple[str, Path], client: ClientName, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect(kafka_server[0], KafkaSettings(client=client))) as log:
        assert log.label.startswith(f"Kafka at {kafka_server[0]}, by {client} ")
    monkeypatch.setattr(clients, "preferred", lambda: client)
    with closing(connect(kafka_server[0])) as log:
        assert f"by {client} " in log.label


@pytest.mark.usefixtures("without_librdkafka")
def test_a_client_that_is_not_installed(kafka_server: tuple[str, Path]) -> None:
    with pytest.raises(ConfigError, match=NOT_INSTALLED):
        connect(kafka_server[0], KafkaSettings(client="librdkafka"))


@pytest.mark.usefixtures("without_librdkafka")
def test_the_option_comes_before_the_variable(
    kafka_server: tuple[str, Path],
    fresh: Callable[[str], str],
    tidecast: Callable[..., "CompletedProcess[str]"],
) -> None:
    topic, where = fresh("power"), ("--bootstrap", kafka_server[0])
    with closing(connect(kafka_server[0])) as log:
        log.create_topic(topic, 1)
    assert tidecast("tail", topic, *where).returncode == 0
    for options in ((*where, "--client", "librdkafka"), ("--client", "librdkafka", *where)):
        ended = tidecast("tail", topic, *options)
        assert (ended.returncode, "tidecast[fast]" in ended.stderr) == (78, True)
