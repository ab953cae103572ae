"""The life of a model under load: three retrainings, swaps, a rollback, and a registry that is away, all counted.

    python benchmarks/life.py            needs $KAFKA_HOME, PostgreSQL's server programs

A broker of its own, an MLflow server on a PostgreSQL of its own, and one `tidecast serve` that gets 2,000 records a
second. The stream changes its ways before the third retraining. Latency is from handing an event to the producer until
its forecast is read. The registry, and promotions and rollbacks by hand, run at the lowest priority, as if they were on
another machine. About fifteen minutes; one JSON object as its last line.
"""

import contextlib
import gc
import json
import math
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import ConfigResource
from serving import ROOT, TIDECAST, broker, say

from deploy.operations.explain import recompute_forecast
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog
from pipeline.log.connect import connect

NAME, SERIES, PARTITIONS, RATE = "life", 100, 4, 2_000
MINUTE, START = 60_000, 1_700_000_040_000
SEQ_LEN, HORIZON, LEARNT = 48, 12, 3_000
STEADY_S, DRIFT_S, AWAY_S, AROUND_S, RESTARTED_S, FOLLOW_S = 60, 90, 120, 5, 10, 10
EXPLAINED = 1_000
FAR = ("nice", "-n", "19")
RECIPE = ("--arch", "segment", "--hidden", "32", "--epochs", "6")


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL of its own; it refuses root, so root runs it as the user `postgres`."""
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    programs = Path(found or sys.exit("PostgreSQL is not installed: there is no initdb")).parent
    user = pwd.getpwnam("postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, user.pw_uid, user.pw_gid)
        port = free_port()

        def run(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, check=True, user=user.pw_uid, cwd=folder, stdout=subprocess.DEVNULL)

        run("initdb", "--auth", "trust", "--username", "mlflow")
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -p {port}"
        run("pg_ctl", "--wait", "--log", f"{folder}/log", "--options", options, "start")
        try:
            yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "--mode", "immediate", "stop")


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Server:
    """An MLflow server that can be stopped and started again."""

    def __init__(self, backend: str, folder: Path) -> None:
        self._port, self._backend, self._folder = free_port(), backend, folder
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [*FAR, sys.executable, "-m", "mlflow", "server", "--port", str(self._port), "--workers", "1"]
        command += ["--backend-store-uri", self._backend, "--serve-artifacts"]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--artifacts-destination", str(self._folder / "artifacts")],
                env=os.environ | quiet,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        while True:
            with contextlib.suppress(URLError, ConnectionError), urlopen(f"{self.uri}/health"):
                return
            if self._process.poll() is not None:
                raise SystemExit((self._folder / "mlflow.log").read_text())
            time.sleep(0.2)

    def stop(self) -> None:
        """End it with all its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Stream:
    """Events of all series, step after step: a past as fast as possible, then RATE a second in a thread."""

    def __init__(self, log: EventLog, topic: str) -> None:
        self._producer, self._topic, self._noise = log.producer(), topic, random.Random(0)
        self.sent, self.drifted = 0, False
        self._handed: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def past(self, steps: int) -> None:
        """So many steps, at once."""
        for _ in range(steps * SERIES):
            self._send()
        self._producer.flush()

    def handed(self, step: int, series: int) -> float:
        """When an event was handed to the producer."""
        return self._handed[step * SERIES + series]

    def start(self) -> None:
        """Go on at RATE."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._producer.flush()

    def _run(self) -> None:
        began, before = time.monotonic(), self.sent
        while not self._stop.wait(0.005):
            while self.sent - before < (time.monotonic() - began) * RATE:
                self._send()

    def _send(self) -> None:
        step, series = divmod(self.sent, SERIES)
        period, height = (45, 1.5) if self.drifted else (60, 1.0)
        value = height * math.sin(step / period * math.tau + series) + self._noise.gauss(0, 0.2)
        ts = START + step * MINUTE
        event = Event(f"s{series}", ts, (value,))
        self._handed.append(time.monotonic())
        self._producer.send(self._topic, series % PARTITIONS, event.series.encode(), encode(event), timestamp=ts)
        self.sent += 1


class Reader:
    """All forecasts as they come: when, how long they took, and whose they are."""

    def __init__(self, bootstrap: str, topic: str, stream: Stream) -> None:
        self._consumer = KafkaConsumer(
            topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
        )
        self._stream, self._stop = stream, threading.Event()
        self.came: list[tuple[float, float, str]] = []
        self.seen: dict[tuple[str, int], int] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        decode = msgspec.json.Decoder(Forecast).decode
        while not self._stop.is_set():
            for records in self._consumer.poll(timeout_ms=5).values():
                now = time.monotonic()
                for record in records:
                    made = decode(record.value)
                    step = (made.ts - START) // MINUTE
                    took = now - self._stream.handed(step, int(made.series[1:]))
                    self.came.append((now, took, made.model))
                    self.seen[made.series, made.ts] = self.seen.get((made.series, made.ts), 0) + 1

    def first_of(self, label: str, since: float, within: float = 60) -> float:
        """When the first forecast by a version came after a time."""
        deadline, looked = time.monotonic() + within, self._place(since)
        while time.monotonic() < deadline:
            for came, _, whose in self.came[looked:]:
                looked += 1
                if whose == label:
                    return came
            time.sleep(0.02)
        raise SystemExit(f"no forecast by {label} within {within} s")

    def latencies(self, since: float, until: float) -> np.ndarray:
        """Milliseconds, of forecasts that came in a span of time."""
        return 1000 * np.array([took for _, took, _ in self.came[self._place(since) : self._place(until)]])

    def longest_gap(self, since: float, until: float) -> float:
        """Seconds without any forecast."""
        came = (came for came, _, _ in self.came[self._place(since) : self._place(until)])
        return float(np.diff([since, *came, until]).max())

    def _place(self, moment: float) -> int:
        # A walk through all of them would hold up the two threads that time the forecasts.
        return bisect_left(self.came, moment, key=lambda each: each[0])

    def close(self) -> None:
        """Read no more."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()


@dataclass(frozen=True, slots=True)
class World:
    """What the commands are told."""

    bootstrap: str
    server: Server
    folder: Path
    topic: str

    def tidecast(self, command: str, *arguments: str) -> dict[str, Any]:
        """A command, to its end; its JSON."""
        words = [*(FAR if command in ("promote", "rollback") else ()), *self.command(command, *arguments)]
        done = subprocess.run(words, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"tidecast {command} ended with {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def command(self, command: str, *arguments: str) -> list[str]:
        """The same, to be started."""
        return [*TIDECAST, command, *arguments, "--json"]

    @property
    def env(self) -> dict[str, str]:
        """Where everything is."""
        where = {"TIDECAST_BOOTSTRAP": self.bootstrap, "TIDECAST_TRACKING_URI": self.server.uri}
        return os.environ | where | {"PYTHONPATH": str(ROOT), "TIDECAST_NAME": NAME}


def p99(latencies: np.ndarray) -> float:
    """In whole tenths of a millisecond."""
    return round(float(np.quantile(latencies, 0.99)), 1)


class Service:
    """`tidecast serve`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.start()

    def start(self) -> None:
        """Start, or start again."""
        serve = ("--topic", self._world.topic, "--model", f"{NAME}@champion", "--instance", "life", "--device", "cpu")
        command = self._world.command("serve", *serve, "--follow", f"{FOLLOW_S}s")
        self._process = subprocess.Popen(
            command, cwd=self._world.folder, env=self._world.env, stdout=subprocess.DEVNULL
        )

    def end(self, number: signal.Signals) -> None:
        """End it by a signal."""
        self._process.send_signal(number)
        self._process.wait(60)


class Life:
    """The stages, in their order."""

    def __init__(self, world: World, stream: Stream, reader: Reader) -> None:
        self.world, self.stream, self.reader = world, stream, reader
        self.found: dict[str, Any] = {}

    def steady(self) -> None:
        """Serving, and nothing else."""
        began = time.monotonic()
        time.sleep(STEADY_S)
        latencies = self.reader.latencies(began, time.monotonic())
        median, rate = round(float(np.median(latencies)), 1), round(len(latencies) / STEADY_S)
        self.found["steady"] = {"records_per_s": rate, "median_ms": median, "p99_ms": p99(latencies)}
        say(f"steady: {self.found['steady']}")

    def retrainings(self) -> None:
        """An equal challenger, a deliberately worse one, and after the stream has changed one more."""
        self._retrain("the same again", *RECIPE, "--seed", "1")
        self._retrain("deliberately worse", "--arch", "segment", "--hidden", "1", "--epochs", "1", "--seed", "2")
        self.stream.drifted = True
        since = datetime.fromtimestamp((START + self.stream.sent // SERIES * MINUTE) / 1000, UTC)
        say(f"the stream changes at {since}")
        time.sleep(DRIFT_S)
        made = self._retrain("after the change", *RECIPE, "--seed", "3", "--since", since.isoformat())
        if made["decision"] == "promote":
            self._swap(made["model"], made["at"], "retrain")

    def _retrain(self, what: str, *recipe: str) -> dict[str, Any]:
        began = time.monotonic()
        made = self.world.tidecast("retrain", "--topic", self.world.topic, *recipe)
        made |= {"what": what, "at": time.monotonic()}
        made["seconds"], made["p99_ms"] = round(made["at"] - began, 1), p99(self.reader.latencies(began, made["at"]))
        self.found.setdefault("retrainings", []).append(made)
        say(f"{what}: {made}")
        return made

    def _swap(self, label: str, since: float, why: str) -> None:
        swapped = self.reader.first_of(label, since)
        time.sleep(AROUND_S + 1)
        around = self.reader.latencies(swapped - AROUND_S, swapped + AROUND_S)
        swap = {"why": why, "to": label, "after_s": round(swapped - since, 2), "p99_ms": p99(around)}
        swap["to_steady"] = round(swap["p99_ms"] / self.found["steady"]["p99_ms"], 2)
        self.found.setdefault("swaps", []).append(swap)
        say(f"swap: {swap}")

    def rollbacks(self) -> None:
        """Back and forth by hand; each takes effect within a poll."""
        for _ in range(3):
            for command in (("rollback", NAME), ("promote", f"{NAME}@challenger")):
                label = self.world.tidecast(*command)["model"]
                self._swap(label, time.monotonic(), command[0])

    def registry_away(self) -> None:
        """The registry stopped, and started again."""
        self.world.server.stop()
        began = time.monotonic()
        time.sleep(AWAY_S)
        ended = time.monotonic()
        self.world.server.start()
        latencies = self.reader.latencies(began, ended)
        gap = round(self.reader.longest_gap(began, ended), 3)
        self.found["registry_away"] = {"longest_gap_s": gap, "p99_ms": p99(latencies), "forecasts": len(latencies)}
        say(f"registry away: {self.found['registry_away']}")

    def restart(self, service: Service) -> None:
        """The service ended and started again; then more of the stream."""
        service.end(signal.SIGTERM)
        began, before = time.monotonic(), len(self.reader.came)
        service.start()
        while len(self.reader.came) == before:
            time.sleep(0.02)
        self.found["restart_s"] = round(time.monotonic() - began, 2)
        time.sleep(RESTARTED_S)
        say(f"restart: a forecast after {self.found['restart_s']} s")

    def counted(self) -> None:
        """Every event that filled a window, once."""
        steps = range(SEQ_LEN - 1, self.stream.sent // SERIES)
        due = {(f"s{series}", step) for series in range(SERIES) for step in steps}
        deadline = time.monotonic() + 30
        while len(self.reader.seen) < len(due) and time.monotonic() < deadline:
            time.sleep(0.1)
        came = {(series, (ts - START) // MINUTE) for series, ts in self.reader.seen}
        twice = sum(count > 1 for count in self.reader.seen.values())
        self.found["counted"] = {"due": len(due), "lost": len(due - came), "twice": twice}
        say(f"counted: {self.found['counted']}")

    def explained(self, log: EventLog) -> None:
        """Random forecasts, made again."""
        output, chance, same = f"{self.world.topic}-forecasts", random.Random(0), 0
        bounds = log.bounds(output)
        for number in range(EXPLAINED):
            partition = chance.randrange(PARTITIONS)
            offset = chance.randrange(*bounds[partition])
            same += recompute_forecast(log, output, partition, offset, None, self.world.server.uri, None).same
            if number % 200 == 199:
                say(f"explained: {same} of {number + 1} the same to the bit")
        self.found["explained"] = {"forecasts": EXPLAINED, "same": same}


def live(world: World, log: EventLog) -> dict[str, Any]:
    """One life."""
    log.create_topic(world.topic, PARTITIONS)
    log.create_topic(f"{world.topic}-forecasts", PARTITIONS)
    stream = Stream(log, world.topic)
    stream.past(LEARNT)
    shape = ("--seq-len", str(SEQ_LEN), "--horizon", str(HORIZON), "--freq", "1m")
    world.tidecast("train", "--topic", world.topic, *shape, *RECIPE)
    service = Service(world)
    reader = Reader(world.bootstrap, f"{world.topic}-forecasts", stream)
    try:
        while len(reader.came) < (LEARNT - SEQ_LEN + 1) * SERIES:
            time.sleep(0.2)
        stream.start()
        time.sleep(5)
        life = Life(world, stream, reader)
        life.steady()
        life.retrainings()
        life.rollbacks()
        life.registry_away()
        life.restart(service)
        stream.stop()
        life.counted()
        service.end(signal.SIGTERM)
        life.explained(log)
        return life.found
    finally:
        service.end(signal.SIGKILL)
        stream.stop()
        reader.close()


def main() -> None:
    """One life, from its own servers' start to their end."""
    gc.disable()  # with millions of forecasts noted, the reader's own pauses would pass for the service's
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.chdir(folder)
        server = Server(stack.enter_context(postgres()), folder)
        stack.callback(server.stop)
        server.start()
        bootstrap = stack.enter_context(broker())
        with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:  # events are of years ago
            admin.alter_configs([ConfigResource("broker", "0", {"log.retention.ms": "-1"})])
        log = stack.enter_context(contextlib.closing(connect(bootstrap)))
        found = live(World(bootstrap, server, folder, f"life-{time.time_ns()}"), log)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
