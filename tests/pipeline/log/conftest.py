"""The tests of the log run with either client of Kafka."""

from pathlib import Path

import pytest

from pipeline.log.kafka import clients

CLIENTS = ["kafka-python", "librdkafka"]


@pytest.fixture(params=[CLIENTS[0], pytest.param(CLIENTS[1], marks=pytest.mark.slow)])
def kafka_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The client that is preferred now."""
    monkeypatch.setattr(clients, "preferred", lambda: request.param)
    return str(request.param)


@pytest.fixture
def kafka_bootstrap(kafka_client: str, kafka_server: tuple[str, Path]) -> str:
    """host:port of the run's broker, to be connected to by either client."""
    return kafka_server[0]


@pytest.fixture(params=["sqlite", *CLIENTS])
def log_address(
    request: pytest.FixtureRequest, tmp_path: Path, kafka_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> str:
    """An address for pipeline.log.connect: a new SQLite file, or the run's broker by either client."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'log.db'}"
    monkeypatch.setattr(clients, "preferred", lambda: request.param)
    return kafka_server[0]
