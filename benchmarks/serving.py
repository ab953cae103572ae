"""What the benchmarks of serving share: a broker, a filled topic, child processes, and one run of `tidecast serve`."""

import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from urllib.request import urlopen

import onnxruntime as ort

from pipeline.log import EventLog

ROOT = Path(__file__).resolve().parent.parent
TIDECAST = (sys.executable, "-P", "-m", "tidecast")
"""The command line of this environment, whatever lies in the working directory."""
KEYS = 100
PARTITIONS = 4
MINUTE_MS = 60_000
START = 1_700_000_000_000
GIVE_UP_S = 600
"""Seconds a round may take."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One broker with one filled topic, and what runs on it."""

    log: EventLog
    bootstrap: str
    records: int
    device: str = "cpu"
    keys: int = KEYS
    topic: str = field(default_factory=lambda: f"bench-{time.time_ns()}")
    _runs: Iterator[int] = field(default_factory=count)

    def fill(self) -> None:
        """Publish the load: JSON points of the series in turn, a minute apart."""
        say(f"publishing {self.records:,} records to {self.topic}")
        self.log.create_topic(self.topic, PARTITIONS)
        noise = random.Random(0)
        with contextlib.closing(self.log.producer()) as producer:
            for number in range(self.records):
                step, key = divmod(number, self.keys)
                value = math.sin(step / 24 * math.tau + key) + noise.random() * 0.1
                body = b'{"ts":%d,"value":%.4f}' % (START + step * MINUTE_MS, value)
                producer.send(self.topic, None, b"series-%d" % key, body)
            producer.flush()

    def tidecast(
        self, model: Path, guarantee: str = "at-least-once", options: Sequence[str] = (), seen: "Seen | None" = None
    ) -> float:
        """Records a second of one `tidecast serve`, by its own summary, from a new group's start to the last commit.

        `options` are more of the service's; `seen` gets what the service says of itself once all is done.
        """
        summary = self.served(model, guarantee, options, seen)
        return float(summary["records"]) / float(summary["seconds"])

    def served(
        self, model: Path, guarantee: str = "at-least-once", options: Sequence[str] = (), seen: "Seen | None" = None
    ) -> dict[str, float]:
        """The summary of one `tidecast serve` of all records."""
        output = self.new_output()
        command = [*self.serve(model, output), "--json", "--guarantee", guarantee, *options]
        command += ["--http", f":{seen.port}"] if seen else []
        with running(command) as service:
            deadline = time.monotonic() + GIVE_UP_S
            while sum(commit.offset for commit in self.log.committed(output, self.topic).values()) < self.records:
                if service.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"tidecast serve did not get to the end: exit {service.poll()}")
                time.sleep(0.5)
            if seen:
                seen.look(service)
            service.send_signal(signal.SIGTERM)
            return last_json(service)

    def serve(self, model: Path, output: str) -> list[str]:
        """The command of a service on the topic, in a group of its own."""
        command = [*TIDECAST, "serve", "--bootstrap", self.bootstrap, "--topic", self.topic, "--output", output]
        return [*command, "--model", str(model), "--group", output, "--device", self.device]

    def new_output(self) -> str:
        """Another output topic."""
        output = f"{self.topic}-out-{next(self._runs)}"
        self.log.create_topic(output, PARTITIONS)
        return output


@dataclass(slots=True)
class Seen:
    """What a service says of itself while it still runs."""

    port: int = field(default_factory=lambda: free_port())
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds in each stage of the loop."""
    most_mib: float = 0.0
    """The most memory that its process has had."""

    def look(self, service: "subprocess.Popen[str]") -> None:
        """Ask it."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        for line in lines:
            name, _, value = line.rpartition(" ")
            if name.startswith("tidecast_stage_seconds_sum"):
                stage = name.partition('stage="')[2].partition('"')[0]
                self.stages[stage] = self.stages.get(stage, 0.0) + float(value)
        status = Path(f"/proc/{service.pid}/status").read_text()
        self.most_mib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@cache
def seq_len(model: Path) -> int:
    """The steps an ONNX model looks back."""
    return int(ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0].shape[1])


@contextlib.contextmanager
def running(command: list[str], cwd: Path = ROOT, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A child process with its standard output piped, gone at the end with all its own whatever happens."""
    child = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def last_json(child: subprocess.Popen[str]) -> dict[str, float]:
    """What the child says in its last line, once it has ended by itself."""
    said, _ = child.communicate(timeout=GIVE_UP_S)
    if child.returncode or not said:
        raise SystemExit(f"{child.args!r} ended with {child.returncode}")
    summary: dict[str, float] = json.loads(said.splitlines()[-1])
    return summary


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def broker(delay_ms: int = 0) -> Iterator[str]:
    """A Kafka broker of one node from $KAFKA_HOME, for as long as this lasts.

    A new group waits for `delay_ms` in place of Kafka's default of three seconds: members that start together share its
    partitions out once.
    """
    home = os.environ.get("KAFKA_HOME") or sys.exit("give --bootstrap, or set KAFKA_HOME")
    kafka = str(Path(home) / "bin" / "kafka")
    with tempfile.TemporaryDirectory() as folder:

        def run(*line: str) -> str:
            return subprocess.run([kafka, *line], check=True, capture_output=True, text=True).stdout

        try:
            started = run("start", folder, "--port", str(free_port()))
            if delay_ms:
                run("stop", folder)
                with (Path(folder) / "node0" / "server.properties").open("a") as properties:
                    properties.write(f"group.initial.rebalance.delay.ms={delay_ms}\n")
                started = run("restart", folder)
            yield started.split()[-1]
        finally:
            run("kill", folder)


def say(line: str) -> None:
    """A line for people, on stderr."""
    print(line, file=sys.stderr, flush=True)
