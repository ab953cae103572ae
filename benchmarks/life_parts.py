"""What benchmarks/life.py consists of: a registry's servers, a stream of events, and a reader of the forecasts."""

import contextlib
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
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import numpy as np
from kafka import KafkaConsumer

from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog

SERIES, PARTITIONS, RATE = 100, 4, 2_000
MINUTE, START = 60_000, 1_700_000_040_000
FAR = ("nice", "-n", "19")
"""What runs as if on another machine: at the lowest priority."""


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
