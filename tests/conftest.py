"""What tests share: a real Kafka broker, an MLflow server, the command line, and names that no other test uses."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from hypothesis import settings
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from sharing import Shared, kill_process, start_process
from waiting import until

from model.artifacts.registry import Registry
from pipeline.log import EventLog, Record
from pipeline.log.connect import connect
from pipeline.log.kafka import clients
from tidecast.__main__ import main
from tidecast.errors import UnknownTopic

settings.register_profile("default", deadline=None)  # a busy machine is no failure
settings.register_profile("quick", deadline=None, max_examples=12)
settings.load_profile("default")
names = itertools.count()
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Which of a run's workers this is, "gw0" for example; none if it is the only one."""
SERVING_PYTHON = os.environ.get("TIDECAST_SERVING_PYTHON", sys.executable)
"""What runs `tidecast serve` as a process: this Python, or that of an environment without the training extra."""


@pytest.fixture(scope="session", autouse=True)
def _kafka_python() -> Iterator[None]:
    """Kafka is read and written by kafka-python, but in tests that ask for the other client, or for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "preferred", lambda: "kafka-python")
        patch.setenv("TIDECAST_KAFKA_CLIENT", "kafka-python")
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """What this run makes once, for all of its workers."""
    base = tmp_path_factory.getbasetemp()
    return Shared((base.parent if WORKER else base) / "shared")


@pytest.fixture(scope="session")
def kafka_server(shared: Shared) -> Iterator[tuple[str, Path]]:
    """host:port of a broker with one node, started from $KAFKA_HOME once a run, and its folder."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME is not set: this needs Apache Kafka, its bin/kafka and a Java to run it")
    kafka = Path(home) / "bin" / "kafka"

    def start(folder: Path) -> str:
        command = [str(kafka), "start", str(folder), "--port", str(free_port())]
        started = subprocess.run(command, check=True, capture_output=True, text=True)
        bootstrap = started.stdout.split()[-1]
        with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:  # tests write records of years ago
            admin.alter_configs([ConfigResource("broker", "0", {"log.retention.ms": "-1"})])
        return bootstrap

    def stop(folder: Path) -> None:
        subprocess.run([kafka, "kill", folder], check=True)

    with shared.server("kafka", start, stop) as server:
        yield server


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_server: tuple[str, Path]) -> str:
    """host:port of the run's broker."""
    return kafka_server[0]


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
    """An address for pipeline.log.connect: a new SQLite file, or the run's broker."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'log.db'}"
    return str(request.getfixturevalue("kafka_bootstrap"))


@pytest.fixture
def log(log_address: str) -> Iterator[EventLog]:
    """A connection to it."""
    with closing(connect(log_address)) as log:
        yield log


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A name for a topic or a group that nobody had before: fresh("orders") -> "orders-17", or "orders-gw0-17"."""
    return lambda name: "-".join(filter(None, (name, WORKER, str(next(names)))))


@pytest.fixture(scope="session")
def empty_registry(shared: Shared) -> Path:
    """The database of a registry that holds nothing, to copy: to make its tables anew takes seconds."""
    return shared.made("registry", lambda folder: Registry(f"sqlite:///{folder}/mlflow.db").names()) / "mlflow.db"


@pytest.fixture
def tracking_uri(tmp_path: Path, empty_registry: Path) -> str:
    """A registry of this test's own, empty, with its artifacts in tmp_path."""
    return f"sqlite:///{shutil.copy(empty_registry, tmp_path / 'mlflow.db')}"


@pytest.fixture(scope="session")
def mlflow_server(shared: Shared, empty_registry: Path) -> Iterator[tuple[str, Path]]:
    """The URL of the run's MLflow server, and the folder of its artifacts."""

    def start(folder: Path) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        backend = f"sqlite:///{shutil.copy(empty_registry, folder / 'mlflow.db')}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
        command += ["--backend-store-uri", backend, "--serve-artifacts", "--artifacts-destination", "artifacts"]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        process = start_process(folder, command, {**os.environ, **quiet})
        until(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
        return f"http://127.0.0.1:{port}"

    with shared.server("mlflow", start, kill_process) as (url, folder):
        yield url, folder / "artifacts"


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        with urlopen(url):
            return True
    except (URLError, ConnectionError):
        return False


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
def run_serving_python(tmp_path: Path) -> Callable[..., str]:
    """What a program prints in the environment of `tidecast serve`, in an empty folder, `without` some modules."""

    def run(program: str, *, without: tuple[str, ...] = ()) -> str:
        code = f"import sys; sys.modules.update(dict.fromkeys({without!r}))\n{program}"
        return subprocess.run(
            [SERVING_PYTHON, "-c", code], cwd=tmp_path, text=True, stdout=subprocess.PIPE, check=True
        ).stdout

    return run


@pytest.fixture
def until_written() -> Callable[[EventLog, str, int, "subprocess.Popen[str]"], list[Record]]:
    """Waits until a topic with one partition has so many records, as long as their writer lives; the records."""

    def wait(log: EventLog, topic: str, count: int, producer: "subprocess.Popen[str]") -> list[Record]:
        until(lambda: _end(log, topic) >= count, producer)
        return [record for records in log.read(topic, 0, 0, _end(log, topic)) for record in records]

    return wait


def _end(log: EventLog, topic: str) -> int:
    try:
        return log.bounds(topic)[0].end
    except UnknownTopic:
        return 0


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """One thread of torch's, from the first test that asks for it: several are slower where tests run side by side."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
