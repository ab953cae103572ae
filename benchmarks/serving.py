"""Serving speed: Tidecast under both guarantees, beside Kafka Streams, on one topic, model and broker, in turn.

    python benchmarks/serving.py --anchors DIR                   a broker of its own from $KAFKA_HOME
    python benchmarks/serving.py --bootstrap HOST:PORT my.onnx   an existing broker, ours alone

Records a second from the first record read to the last one committed; start-up is left out on both sides. `--anchors`
is a folder with jvm/anchor.jar, jvm/libs and models/*.onnx: sliding windows and ONNX in Kafka Streams, at least once,
run by the `java` on PATH. Each side has one onnxruntime thread. Topics are left on an existing broker.
"""

import argparse
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import onnxruntime as ort

from pipeline.log import EventLog
from pipeline.log.connect import connect

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
    anchors: Path | None
    device: str = "cpu"
    topic: str = field(default_factory=lambda: f"bench-{time.time_ns()}")
    _runs: Iterator[int] = field(default_factory=count)

    def fill(self) -> None:
        """Publish the load: JSON points of KEYS series in turn, a minute apart."""
        say(f"publishing {self.records:,} records to {self.topic}")
        self.log.create_topic(self.topic, PARTITIONS)
        noise = random.Random(0)
        with contextlib.closing(self.log.producer()) as producer:
            for number in range(self.records):
                step, key = divmod(number, KEYS)
                value = math.sin(step / 24 * math.tau + key) + noise.random() * 0.1
                body = b'{"ts":%d,"value":%.4f}' % (START + step * MINUTE_MS, value)
                producer.send(self.topic, None, b"series-%d" % key, body)
            producer.flush()

    def tidecast(self, model: Path, guarantee: str = "at-least-once") -> float:
        """Records a second of one `tidecast serve`, by its own summary, from a new group's start to the last commit."""
        output = self._output()
        command = [*TIDECAST, "serve", "--bootstrap", self.bootstrap, "--topic", self.topic]
        command += ["--output", output, "--model", str(model), "--group", output, "--json"]
        command += ["--device", self.device, "--guarantee", guarantee]
        expected = self.records - KEYS * (seq_len(model) - 1)
        with running(command) as service:
            deadline = time.monotonic() + GIVE_UP_S
            while sum(end for _, end in self.log.bounds(output).values()) < expected:
                if service.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"tidecast serve made too few forecasts: exit {service.poll()}")
                time.sleep(0.5)
            service.send_signal(signal.SIGTERM)
            summary = last_json(service)
        return float(summary["records"]) / float(summary["seconds"])

    def kafka_streams(self, model: Path) -> float:
        """Records a second of Kafka Streams, at least once, by its own clock."""
        assert self.anchors
        jars = f"{self.anchors / 'jvm' / 'anchor.jar'}:{self.anchors / 'jvm' / 'libs'}/*"
        command = ["java", "-Xmx1g", "-cp", jars, "Anchor", "streams", self.bootstrap, self.topic, self._output()]
        with running([*command, str(model), str(seq_len(model)), str(self.records), "at_least_once"]) as anchor:
            return float(last_json(anchor)["records_per_s"])

    def _output(self) -> str:
        output = f"{self.topic}-out-{next(self._runs)}"
        self.log.create_topic(output, PARTITIONS)
        return output


def seq_len(model: Path) -> int:
    """The steps an ONNX model looks back."""
    return int(ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0].shape[1])


@contextlib.contextmanager
def running(command: list[str], cwd: Path = ROOT, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A child process with its standard output piped, gone at the end whatever happens."""
    child = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def last_json(child: subprocess.Popen[str]) -> dict[str, float]:
    """What the child says in its last line, once it has ended by itself."""
    said, _ = child.communicate(timeout=GIVE_UP_S)
    if child.returncode or not said:
        raise SystemExit(f"{child.args!r} ended with {child.returncode}")
    summary: dict[str, float] = json.loads(said.splitlines()[-1])
    return summary


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """A Kafka broker of one node from $KAFKA_HOME, for as long as this lasts."""
    home = os.environ.get("KAFKA_HOME") or sys.exit("give --bootstrap, or set KAFKA_HOME")
    kafka = str(Path(home) / "bin" / "kafka")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        try:
            started = subprocess.run(
                [kafka, "start", folder, "--port", str(port)], check=True, capture_output=True, text=True
            )
            yield started.stdout.split()[-1]
        finally:
            subprocess.run([kafka, "kill", folder], check=True)


def compare(bench: Bench, models: list[Path], rounds: int) -> dict[str, dict[str, float]]:
    """Medians by model and contender; who goes first changes with every round."""
    contenders: dict[str, Callable[[Path], float]] = {
        "tidecast": bench.tidecast,
        "exactly_once": lambda model: bench.tidecast(model, "exactly-once"),
    }
    if bench.anchors:
        contenders["kafka_streams"] = bench.kafka_streams
    results: dict[str, dict[str, float]] = {}
    for model in models:
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds):
            for name in list(contenders)[:: -1 if number % 2 else 1]:
                speeds[name].append(contenders[name](model))
                say(f"{model.stem}, round {number + 1}: {name} {speeds[name][-1]:,.0f} records/s")
        results[model.stem] = {name: round(median(values)) for name, values in speeds.items()}
        for rival in [name for name in contenders if name != "tidecast"]:
            ratio = results[model.stem]["tidecast"] / results[model.stem][rival]
            results[model.stem][f"to {rival}"] = round(ratio, 2)
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as lines of equal columns."""
    names = list(next(iter(results.values())))
    rows = [["records/s", *names], *([model, *(f"{row[name]:,}" for name in names)] for model, row in results.items())]
    return "\n".join("".join(f"{cell:>16}" for cell in row) for row in rows)


def say(line: str) -> None:
    """A line for people, on stderr."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Run the comparison; with --json its last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx", help="default: those of the anchors")
    parser.add_argument("--bootstrap", help="an existing broker; default: one is started from $KAFKA_HOME")
    parser.add_argument(
        "--anchors", type=Path, default=os.environ.get("TIDECAST_ANCHORS"), help="default: $TIDECAST_ANCHORS"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    models = [path.resolve() for path in asked.models or sorted((asked.anchors or ROOT).glob("models/*.onnx"))]
    if not models:
        parser.error("give a MODEL.onnx, or --anchors")
    with contextlib.ExitStack() as stack:
        bootstrap = asked.bootstrap or stack.enter_context(broker())
        log = stack.enter_context(contextlib.closing(connect(bootstrap)))
        bench = Bench(log, bootstrap, asked.records, asked.anchors)
        bench.fill()
        results = compare(bench, models, asked.rounds)
    print(table(results))
    if asked.json:
        print(json.dumps({"records": asked.records, "rounds": asked.rounds, "models": results}))


if __name__ == "__main__":
    main()
