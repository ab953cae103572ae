"""What tests share: a real Kafka broker, an MLflow server, the command line, and names that no other test uses."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

from model.registry import Registry
from pipeline.log import EventLog, Record
from tidecast.__main__ import main
from tidecast.errors import UnknownTopic

names = itertools.count()
SERVING_PYTHON = os.environ.get("TIDECAST_SERVING_PYTHON", sys.executable)
"""What runs `tidecast serve` as a process: this Python, or that of an environment without the training extra."""


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
        bootstrap = started.stdout.split()[-1]
        with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:  # tests write records of years ago
            admin.alter_configs([ConfigResource("broker", "0", {"log.retention.ms": "-1"})])
        yield bootstrap
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


@pytest.fixture(scope="session")
def _empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("registry") / "mlflow.db"
    Registry(f"sqlite:///{file}").names()
    return file


@pytest.fixture
def tracking_uri(tmp_path: Path, _empty_registry: Path) -> str:
    """A registry of this test's own, empty, with its artifacts in tmp_path; to make its tables anew takes seconds."""
    return f"sqlite:///{shutil.copy(_empty_registry, tmp_path / 'mlflow.db')}"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of an MLflow server for this session, and the folder of its artifacts."""
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    backend, artifacts = f"sqlite:///{folder}/mlflow.db", folder / "artifacts"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", backend, "--serve-artifacts", "--artifacts-destination", str(artifacts)],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}", artifacts
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urlopen(url):
                return
        except (URLError, ConnectionError):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.1)
    pytest.fail("mlflow server does not start")


@pytest.fixture
def tidecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    """`tidecast ARGUMENTS` in this process, in an empty folder: what it printed and ended with."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = ["tidecast", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(command, ended.value.code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def start_tidecast(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`tidecast ARGUMENTS` as a process, in an empty folder, `without` some modules; killed at the end if it runs."""
    with ExitStack() as stack:

        def start(*arguments: object, without: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
            python = SERVING_PYTHON if arguments[0] == "serve" else sys.executable
            code = f"import sys; sys.modules.update(dict.fromkeys({without!r})); from tidecast.__main__ import main"
            code += "; main()"
            command = [python, "-c", code, *map(str, arguments)]
            process = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def until_written() -> Callable[[EventLog, str, int, "subprocess.Popen[str]"], list[Record]]:
    """Waits until a topic with one partition has so many records, as long as their writer lives; the records."""

    def wait(log: EventLog, topic: str, count: int, writer: "subprocess.Popen[str]") -> list[Record]:
        deadline = time.monotonic() + 180
        while (end := _end(log, topic)) < count:
            assert time.monotonic() < deadline, f"{end} of {count} records"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(0.05)
        return [record for records in log.read(topic, 0, 0, end) for record in records]

    return wait


def _end(log: EventLog, topic: str) -> int:
    try:
        return log.bounds(topic)[0].end
    except UnknownTopic:
        return 0
