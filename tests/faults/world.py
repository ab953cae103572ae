"""One fault's world: a topic under load, services as processes, and the judgement of what they did.

Nothing in it is shared with another world but the brokers: topics, group and transactional ids are its own.
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
from oracle import Expected, Oracle, Verdict, judge, read

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
"""The most records that one death can make come again, at least once."""
SESSION_S = 10
SETTINGS = {
    "TIDECAST_KAFKA_SESSION_S": str(SESSION_S),
    "TIDECAST_KAFKA_REQUEST_S": "10",
    "TIDECAST_KAFKA_DELIVERY_S": "12",
    "TIDECAST_KAFKA_TRANSACTION_S": "15",
}
RESTARTED = (-signal.SIGKILL, os.EX_TEMPFAIL)
"""The ends after which a supervisor starts a service again."""


INTERRUPTED = threading.Event()
"""Set to end all worlds."""


class Unexpected(Exception):
    """Something that should have happened did not, or the other way round."""


class Row(NamedTuple):
    """A record of the load."""

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
    """Events without end, a step of every series after another; in a hundred one is missing, one comes again, one
    comes late, and one is no event."""
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
    """Sends rows to a topic, at its own pace, whatever becomes of the brokers meanwhile."""

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
        """Send the next so many rows as fast as they go, and wait for the brokers."""
        futures = [self._next() for _ in range(count)]
        self._producer.flush()
        for future in futures:
            future.get(0)

    def _next(self) -> Any:
        partition, key, value = next(self._rows)
        self.sent += 1
        return self._producer.send(self._topic, value, key, partition=partition)

    @contextlib.contextmanager
    def flowing(self, rate: int, at_least: int, pace: float) -> Iterator[None]:
        """Send so many rows a second, some every `pace` seconds, for as long as this lasts; then the rest of
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
        """Give up what is not sent."""
        with contextlib.suppress(errors.KafkaTimeoutError):
            self._producer.close(timeout=1)


class Service:
    """`tidecast serve` as a process; supervised, it is started again when it is killed or ends with 75."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], folder: Path, failpoint: str, supervised: bool
    ) -> None:
        self.codes: list[int] = []
        self._command, self._environment, self._folder = command, environment, folder
        self._errors = folder / f"{command[command.index('--instance') + 1]}-{time.monotonic_ns()}.err"
        self._supervised = supervised
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._over = threading.Event()
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
            if code not in RESTARTED or not self._supervised:
                break
            # A service that can't even start should not take the machine from those that can.
            if self._leaving.wait(0 if time.monotonic() - began > 5 else 1):
                break
            with self._lock:
                if self._leaving.is_set():
                    break
                self._launch("")
        self._over.set()

    @property
    def said(self) -> str:
        """Its stderr, all lives together."""
        return self._errors.read_text(errors="replace")

    @property
    def broken(self) -> bool:
        """Whether it ended otherwise than it was asked to, or than a supervisor takes care of."""
        return bool(self.codes) and self.codes[-1] not in (*RESTARTED, 0)

    def is_stopped(self) -> bool:
        """Whether it hangs by SIGSTOP."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def peak(self) -> float:
        """The most memory that this life has used, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, for good."""
        with self._lock:
            self._leaving.set()
            self._process.terminate()

    def ended(self, seconds: float = 60) -> int:
        """The code of its last life, once it is over for good."""
        if not self._over.wait(seconds):
            raise Unexpected(f"a service did not end in {seconds:g} s")
        return self.codes[-1]

    def close(self) -> None:
        """End it, whatever it does."""
        with self._lock:
            self._leaving.set()
            self._process.kill()
        self._over.wait(10)


class World:
    """A topic with six partitions, its load, its services, and what a fault may be done to."""

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
        """How many outputs may come again at least once, besides a batch for each death."""
        self._cluster, self._lane = cluster, lane
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.log = stack.enter_context(contextlib.closing(connect(self.bootstrap)))
            self.log.create_topic(self.topic, PARTITIONS)
            self.load = stack.enter_context(contextlib.closing(Load(self.bootstrap, self.topic, rows())))
            self._admin = self._connected()
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
        """A broker that has the partitions of all earlier faults is slow to come back from the next one."""
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

    def _connected(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.bootstrap.split(","), request_timeout_ms=5000)

    def flowing(
        self, rate: int = 500, at_least: int = RECORDS, pace: float = 0.2
    ) -> contextlib.AbstractContextManager[None]:
        """The load, so many records a second; each `pace` is at least a transaction, which is work for the brokers."""
        return self.load.flowing(rate, at_least, pace)

    def serve(
        self,
        instance: str = "a",
        *options: str,
        failpoint: str = "",
        supervised: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Service:
        """Start a service."""
        command = [sys.executable, "-P", "-m", "tidecast", "serve", "--topic", self.topic, "--output", self.output]
        command += ["--model", self.model, "--group", self.group, "--instance", instance, "--device", "cpu"]
        command += ["--guarantee", self.guarantee, "--bootstrap", self.serve_from, *options]
        service = Service(command, {**SETTINGS, **(environment or {})}, self.folder, failpoint, supervised)
        self.services.append(service)
        return service

    def positions(self) -> dict[int, OffsetAndMetadata]:
        """What the group has committed, by partition; nothing while nobody can say."""
        try:
            found = self._admin.list_group_offsets({self.group: None})[self.group]
        except (errors.KafkaError, TimeoutError):
            with contextlib.suppress(errors.KafkaError):  # the old one would go on asking a coordinator that is gone
                admin, self._admin = self._admin, self._connected()
                admin.close()
            return {}
        return {where.partition: offset for where, offset in found.items() if where.topic == self.topic}

    def progress(self) -> int:
        """How many records the group has committed."""
        return sum(offset.offset for offset in self.positions().values())

    def until(self, condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> float:
        """Wait for a condition, as long as no service breaks; how long it took."""
        began = time.monotonic()
        while not condition():
            if INTERRUPTED.is_set():
                raise Unexpected("interrupted")
            if broken := [service for service in self.services if service.broken]:
                raise Unexpected(f"a service ended with {broken[0].codes[-1]}")
            if time.monotonic() - began > seconds:
                raise Unexpected(f"{otherwise} in {seconds:g} s")
            time.sleep(0.05)
        return time.monotonic() - began

    def again(self, seconds: float = 90) -> float:
        """Seconds until the group commits more than it has now."""
        before = self.progress()
        return self.until(lambda: self.progress() > before, "no forecasts again", seconds)

    def still(self, seconds: float = 0.5) -> None:
        """Wait until the group has committed nothing for a moment."""
        last, first_offset = self.progress(), time.monotonic()
        while time.monotonic() - first_offset < seconds:
            self.until(lambda: True, "")
            if (now := self.progress()) != last:
                last, first_offset = now, time.monotonic()
            time.sleep(0.05)

    def lasting(self, seconds: float) -> None:
        """Let a fault last, as long as no service breaks."""
        began = time.monotonic()
        self.until(lambda: time.monotonic() - began >= seconds, "", seconds + 1)

    def drained(self, seconds: float = 120) -> float:
        """Seconds until the group has committed everything there is."""

        def all_read() -> bool:
            positions = self.positions()
            bounds = self.log.bounds(self.topic)
            return all(end == 0 or (p in positions and positions[p].offset == end) for p, (_, end) in bounds.items())

        return self.until(all_read, "the topic was not read to its end", seconds)

    def members(self) -> int:
        """How many members the group has."""
        return len(self._admin.describe_groups([self.group])[self.group]["members"])

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        """Delete the input's records before these offsets, as retention does."""
        self._admin.delete_records({TopicPartition(self.topic, partition): to for partition, to in offsets.items()})

    def stop(self) -> None:
        """SIGTERM to all services; each must end with 0."""
        living = [service for service in self.services if not service._over.is_set()]
        for service in living:
            service.terminate()
        for service in living:
            if code := service.ended(30):
                raise Unexpected(f"a service ended with {code} on SIGTERM")

    def allowed_repeats(self) -> int:
        """How many outputs may be there twice: none exactly once, a batch for each death at least once."""
        deaths = sum(code in RESTARTED for service in self.services for code in service.codes)
        return 0 if self.guarantee == "exactly-once" else self.repeats + deaths * MAX_BATCH

    def verdict(self) -> Verdict:
        """Compare the outputs with what should have come of the topic's records, or of `expected`."""
        expected = self.expected or self.oracle.expect(read(self.log, self.topic))
        back = self._commits_gone_back() + self._checkpoints_gone_back()
        return judge(self.log, expected, self.output, self.letters) + Verdict(went_back=back)

    def _commits_gone_back(self) -> int:
        """The group's history as the brokers keep it: every commit, in order."""
        where = internal_partition(self.group) % self.log.partitions("__consumer_offsets")
        start, end = self.log.bounds("__consumer_offsets")[where]
        history = (record for records in self.log.read("__consumer_offsets", where, start, end) for record in records)
        commits = ((record.key, record.value) for record in history if record.value)
        found = (
            (key, struct.unpack(">q", value[2:10])[0])
            for key, value in commits
            if key and key[:2] in (b"\0\0", b"\0\1") and _first_string(key) == self.group
        )
        return _gone_back(found)

    def _checkpoints_gone_back(self) -> int:
        try:
            passes = read(self.log, self.state)
        except UnknownTopic:
            return 0
        return _gone_back(
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


def _gone_back(positions: Iterable[tuple[object, int]]) -> int:
    newest: dict[object, int] = {}
    back = 0
    for where, position in positions:
        back += position < newest.get(where, 0)
        newest[where] = position
    return back
