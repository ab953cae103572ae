"""A real Kafka broker, and addresses and names that no other test uses."""

import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

names = itertools.count()


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker with one node, started from $KAFKA_HOME for this session."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME is not set: this needs Apache Kafka, its bin/kafka and a Java to run it")
    kafka, folder = Path(home) / "bin" / "kafka", tmp_path_factory.mktemp("kafka")
    try:
        command = [str(kafka), "start", str(folder), "--port", str(free_port())]
        started = subprocess.run(command, check=True, capture_output=True, text=True)
        yield started.stdout.split()[-1]
    finally:
        subprocess.run([kafka, "kill", folder], check=True)


def free_port() -> int:
    """A port that is free now, and the one after it, which the broker takes for its controller."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture(params=["sqlite", "kafka"])
def log_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address for pipeline.log.connect: a new SQLite file, or the session's broker."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'log.db'}"
    return str(request.getfixturevalue("kafka_bootstrap"))


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A name for a topic or a group that nobody had before: fresh("orders") -> "orders-17"."""
    return lambda name: f"{name}-{next(names)}"
