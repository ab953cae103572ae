"""The environment of one fault: a topic under load, services as processes, and a comparison of what they wrote.

Two worlds share the brokers only: topics, group and transactional ids are their own.
"""

import contextlib
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from cluster import Cluster, Lane, internal_partition
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition, errors
from kafka.structs import OffsetAndMetadata
from oracle import Expected, Oracle, Verdict, compare, read

from deploy.settings.serve import Guarantee
from model.artifacts.export import export
from model.card import Card, InputSpec, OutputSpec, Setting
from model.networks.forecast import build_network
from pipeline.formats.events import Event, encode
from pipeline.log.connect import connect
from pipeline.state.records import PARTITION_KEY, decode_partition
from tidecast.errors import CorruptState, UnknownTopic

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS, SERIES, RECORDS = 6, 200, 20_000
SEQ_LEN, HORIZON = 12, 4
START, MINUTE = 1_700_000_040_000, 60_000
MAX_BATCH = 2048
"""Most records that one crash may repeat, at least once."""
SESSION_S = 10
SETTINGS = {
    "TIDECAST_KAFKA_SESSION_S": str(SESSION_S),
    "TIDECAST_KAFKA_REQUEST_S": "10",
    "TIDECAST_KAFKA_DELIVERY_S": "12",
    "TIDECAST_KAFKA_TRANSACTION_S": "15",
}
RESTART_CODES = (-signal.SIGKILL, os.EX_TEMPFAIL)
"""The exit codes after which a supervisor restarts a service."""


IN_A_CONTAINER = """
import os, socket
os.getpid, socket.gethostname = lambda: 1, lambda: "localhost"
from tidecast.__main__ import main
main()
"""
"""A service as process 1 of a host whose name says nothing."""

INTERRUPTED = threading.Event()
"""Set to stop all worlds."""


class Unexpected(Exception):
    """A service or the cluster did not behave as the fault expects."""


class Row(NamedTuple):
    """An input record."""

    partition: int
    key: bytes
    value: bytes


def tiny_model(path: Path) -> Path:
    """An untrained model of one-minute steps, written to `path`: 12 back, 4 ahead."""
    inputs, outputs = InputSpec(seq_len=SEQ_LEN, freq="1m"), OutputSpec(horizon=HORIZON)
    settings: dict[str, Setting] = {"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last", "segment": 4}
    card = Card(name="tiny", input=inputs, output=outputs, arch="segment", hyperparameters=settings, trained_until=0)
    export(build_network(card), card, path)
    return path


def row(series: int, step: int, value: float) -> Row:
    """An event of one series at one step."""
    name = f"s{series}"
    return Row(series % PARTITIONS, name.encode(), encode(Event(name, START + step * MINUTE, (value,))))


def rows(series: int = SERIES) -> Iterator[Row]:
    """Endless events of all series, step by step; of a hundred one is missing, one is a duplicate, one is late, and one
    is invalid."""
    chance, step = random.Random(0), 0
    while True:
        for number in range(series):
            kind = chance.random()
            if kind > 0.01:
                yield row(number, step, chance.gauss(number, 1))
            if kind > 0.99:
                yield row(number, step, 0.0)
            elif kind > 0.98:
                yield row(number, step - 2, 0.0)
            elif kind > 0.97:
                yield Row(number % PARTITIONS, b"s%d" % number, b'{"series": "s')
        step += 1


class Load:
    """Sends rows to a topic at a given rate, whatever happens to the brokers."""

    def __init__(self, bootstrap: str, topic: str, source: Iterable[Row]) -> None:
        self._topic, self._rows = topic, iter(source)
        self.sent = 0
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            batch_size=128 << 10,
            max_block_ms=600_000,
            delivery_timeout_ms=600_000,
        )

    def send(self, count: int) -> None:
        """Send the next `count` rows as fast as possible, and wait for their acknowledgements."""
        futures = [self._next() for _ in range(count)]
        self._producer.flush()
        for future in futures:
            future.get(0)

    def _next(self) -> Any:
        partition, key, value = next(self._rows)
        self.sent += 1
        return self._producer.send(self._topic, value, key, partition=partition)

    @contextlib.contextmanager
    def sending(self, rate: int, at_least: int, pace: float) -> Iterator[None]:
        """Send `rate` rows per second, in bursts every `pace` seconds, during the with block; then the rest of
        `at_least`."""
        over = threading.Event()

        def flow() -> None:
            began, sent = time.monotonic(), 0
            while not over.wait(pace):
                due = int((time.monotonic() - began) * rate) - sent
                for _ in range(due):
                    self._next()
                sent += due

        thread = threading.Thread(target=flow, name=f"load of {self._topic}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.send(max(0, at_least - self.sent))

    def close(self) -> None:
        """Close without waiting for unsent rows."""
        with contextlib.suppress(errors.KafkaTimeoutError):
            self._producer.close(timeout=1)


class Service:
    """`tidecast serve` as a process; if supervised, it is restarted when it is killed or exits with 75."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], folder: Path, failpoint: str, supervised: bool
    ) -> None:
        self.codes: list[int] = []
        self._command, self._environment, self._folder = command, environment, folder
        self._errors = folder / f"{time.monotonic_ns()}.err"
        self._supervised = supervised
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._exited = threading.Event()
        self._launch(failpoint)
        threading.Thread(target=self._watch, daemon=True).start()

    def _launch(self, failpoint: str) -> None:
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self._environment, "TIDECAST_FAILPOINT": failpoint},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            code = self._process.wait()
            self.codes.append(code)
            if code not in RESTART_CODES or not self._supervised:
                break
            # A service that fails at once is restarted with a delay, to leave the CPU to the others.
            if self._stopping.wait(0 if time.monotonic() - began > 5 else 1):
                break
            with self._lock:
                if self._stopping.is_set():
                    break
                self._launch("")
        self._exited.set()

    @property
    def stderr(self) -> str:
        """The stderr of all its runs."""
        return self._errors.read_text(errors="replace")

    @property
    def failed(self) -> bool:
        """Whether it exited with a code after which it is not restarted."""
        return bool(self.codes) and self.codes[-1] not in (*RESTART_CODES, 0)

    def is_stopped(self) -> bool:
        """Whether it is stopped by SIGSTOP."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def peak(self) -> float:
        """The peak memory of the current process, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without a restart."""
        with self._lock:
            self._stopping.set()
            self._process.terminate()

    def wait_for_exit(self, seconds: float = 60) -> int:
        """The exit code, once it has exited and is not restarted."""
        if not self._exited.wait(seconds):
            raise Unexpected(f"a service did not end in {seconds:g} s")
        return self.codes[-1]

    def close(self) -> None:
        """SIGKILL, without a restart."""
        with self._lock:
            self._stopping.set()
            self._process.kill()
        self._exited.wait(10)


class World:
    """A topic with six partitions, its load and its services, to which a fault is applied."""

    def __init__(
        self,
        name: str,
        guarantee: Guarantee,
        bootstrap: str,
        model: Path,
        folder: Path,
        *,
        cluster: Cluster | None = None,
        lane: Lane | None = None,
    ) -> None:
        self.topic, self.group, self.guarantee = name, f"{name}-group", guarantee
        self.output, self.state, self.letters = f"{name}-out", f"{name}-group-state", f"{name}-group-dead-letters"
        self.bootstrap, self.serve_from = bootstrap, lane.bootstrap if lane else bootstrap
        self.model, self.folder = str(model), folder
        self.oracle = Oracle(model)
        self.services: list[Service] = []
        self.expected: Expected | None = None
        self.repeats = 0
        """How many outputs may be repeated at least once, besides a batch per crash."""
        self._cluster, self._lane = cluster, lane
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.log = stack.enter_context(contextlib.closing(connect(self.bootstrap)))
            self.log.create_topic(self.topic, PARTITIONS)
            self.load = stack.enter_context(contextlib.closing(Load(self.bootstrap, self.topic, rows())))
            self._admin = self._connect_admin()
            stack.callback(lambda: self._admin.close())
            stack.callback(self._delete_topics)
            stack.callback(self._close_services)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _close_services(self) -> None:
        for service in self.services:
            service.close()

    def _delete_topics(self) -> None:
        """Brokers with the partitions of all earlier faults would be slow to recover from the next one."""
        with contextlib.suppress(errors.KafkaError):
            ours = [
                name for name in self._admin.list_topics() if name == self.topic or name.startswith(f"{self.topic}-")
            ]
            self._admin.delete_topics(ours)

    @property
    def cluster(self) -> Cluster:
        assert self._cluster, "this needs brokers of its own"
        return self._cluster

    @property
    def lane(self) -> Lane:
        assert self._lane, "this needs a lane"
        return self._lane

    @property
    def admin(self) -> KafkaAdminClient:
        return self._admin

    def _connect_admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.bootstrap.split(","), request_timeout_ms=5000)

    def sending(
        self, rate: int = 500, at_least: int = RECORDS, pace: float = 0.2
    ) -> contextlib.AbstractContextManager[None]:
        """Send input at `rate` records per second; each burst is at least one transaction for the brokers."""
        return self.load.sending(rate, at_least, pace)

    def serve(
        self,
        instance: str = "a",
        *options: str,
        failpoint: str = "",
        supervised: bool = True,
        environment: Mapping[str, str] | None = None,
        stderr: str = "",
        container: int | None = None,
    ) -> Service:
        """Start a service: with a shell's redirection of its stderr, or in a folder and on a host as of a container."""
        program = ["-m", "tidecast"] if container is None else ["-c", IN_A_CONTAINER]
        command = [sys.executable, "-P", *program, "serve"]
        command += ["--topic", self.topic, "--output", self.output, "--model", self.model, "--group", self.group]
        command += ["--instance", instance] if instance else []
        command += ["--device", "cpu", "--guarantee", self.guarantee, "--bootstrap", self.serve_from, *options]
        command = ["sh", "-c", f'exec "$@" 2>{stderr}', "sh", *command] if stderr else command
        folder = self.folder if container is None else self.folder / str(container)
        folder.mkdir(exist_ok=True)
        service = Service(command, {**SETTINGS, **(environment or {})}, folder, failpoint, supervised)
        self.services.append(service)
        return service

    def positions(self) -> dict[int, OffsetAndMetadata]:
        """The group's committed offsets, by partition; empty while no coordinator is available."""
        try:
            found = self._admin.list_group_offsets({self.group: None})[self.group]
        except (errors.KafkaError, TimeoutError):
            with contextlib.suppress(errors.KafkaError):  # the old one would go on asking a coordinator that is gone
                admin, self._admin = self._admin, self._connect_admin()
                admin.close()
            return {}
        return {where.partition: offset for where, offset in found.items() if where.topic == self.topic}

    def progress(self) -> int:
        """How many records the group has committed."""
        return sum(offset.offset for offset in self.positions().values())

    def until(self, condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> float:
        """Wait for a condition, while no service fails; how long it took, in seconds."""
        began = time.monotonic()
        while not condition():
            if INTERRUPTED.is_set():
                raise Unexpected("interrupted")
            if broken := [service for service in self.services if service.failed]:
                raise Unexpected(f"a service ended with {broken[0].codes[-1]}")
            if time.monotonic() - began > seconds:
                raise Unexpected(f"{otherwise} in {seconds:g} s")
            time.sleep(0.05)
        return time.monotonic() - began

    def until_commit(self, seconds: float = 90) -> float:
        """Seconds until the group commits more than it has now."""
        before = self.progress()
        return self.until(lambda: self.progress() > before, "no further commit", seconds)

    def until_idle(self, seconds: float = 0.5) -> None:
        """Wait until the group has committed nothing for some time."""
        last, since = self.progress(), time.monotonic()
        while time.monotonic() - since < seconds:
            self.until(lambda: True, "")
            if (now := self.progress()) != last:
                last, since = now, time.monotonic()
            time.sleep(0.05)

    def wait(self, seconds: float) -> None:
        """Wait while a fault lasts and no service fails."""
        began = time.monotonic()
        self.until(lambda: time.monotonic() - began >= seconds, "", seconds + 1)

    def until_drained(self, seconds: float = 120) -> float:
        """Seconds until the group has committed the whole topic."""

        def all_read() -> bool:
            positions = self.positions()
            bounds = self.log.bounds(self.topic)
            return all(end == 0 or (p in positions and positions[p].offset == end) for p, (_, end) in bounds.items())

        return self.until(all_read, "the topic was not read to its end", seconds)

    def members(self) -> int:
        """The number of members of the group."""
        return len(self._admin.describe_groups([self.group])[self.group]["members"])

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        """Delete the input's records before these offsets, as retention does."""
        self._admin.delete_records({TopicPartition(self.topic, partition): to for partition, to in offsets.items()})

    def stop(self) -> None:
        """SIGTERM to all services; each must end with 0."""
        living = [service for service in self.services if not service._exited.is_set()]
        for service in living:
            service.terminate()
        for service in living:
            if code := service.wait_for_exit(30):
                raise Unexpected(f"a service ended with {code} on SIGTERM")

    def allowed_repeats(self) -> int:
        """How many outputs may be duplicates: none exactly once, a batch per crash at least once."""
        crashes = sum(code in RESTART_CODES for service in self.services for code in service.codes)
        return 0 if self.guarantee == "exactly-once" else self.repeats + crashes * MAX_BATCH

    def verdict(self) -> Verdict:
        """Compare the outputs with those expected for the topic's records, or with `expected`."""
        expected = self.expected or self.oracle.expected_output(read(self.log, self.topic))
        back = self._regressed_commits() + self._regressed_checkpoints()
        return compare(self.log, expected, self.output, self.letters) + Verdict(regressed=back)

    def _regressed_commits(self) -> int:
        """Commits before an earlier one, in the order of __consumer_offsets."""
        where = internal_partition(self.group) % self.log.partitions("__consumer_offsets")
        start, end = self.log.bounds("__consumer_offsets")[where]
        history = (record for records in self.log.read("__consumer_offsets", where, start, end) for record in records)
        commits = ((record.key, record.value) for record in history if record.value)
        found = (
            (key, struct.unpack(">q", value[2:10])[0])
            for key, value in commits
            if key and key[:2] in (b"\0\0", b"\0\1") and _first_string(key) == self.group
        )
        return _count_regressions(found)

    def _regressed_checkpoints(self) -> int:
        try:
            passes = read(self.log, self.state)
        except UnknownTopic:
            return 0
        return _count_regressions(
            (partition, position)
            for partition, records in passes.items()
            for record in records
            if record.key == PARTITION_KEY and (position := _position(record.value or b"")) is not None
        )


def _position(checkpoint: bytes) -> int | None:
    with contextlib.suppress(CorruptState):  # a fault of its own
        return decode_partition(checkpoint).position
    return None


def _first_string(data: bytes) -> str:
    (length,) = struct.unpack(">h", data[2:4])
    return data[4 : 4 + length].decode()


def _count_regressions(positions: Iterable[tuple[object, int]]) -> int:
    newest: dict[object, int] = {}
    back = 0
    for where, position in positions:
        back += position < newest.get(where, 0)
        newest[where] = position
    return back
