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
import os
import random
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from life_parts import FAR, MINUTE, PARTITIONS, SERIES, START, Reader, Server, Stream, postgres
from serving import ROOT, TIDECAST, broker, say

from deploy.operations.explain import recompute_forecast
from pipeline.log import EventLog
from pipeline.log.connect import connect

NAME = "life"
SEQ_LEN, HORIZON, LEARNT = 48, 12, 3_000
STEADY_S, DRIFT_S, AWAY_S, AROUND_S, RESTARTED_S, FOLLOW_S = 60, 90, 120, 5, 10, 10
EXPLAINED = 1_000
RECIPE = ("--arch", "segment", "--hidden", "32", "--epochs", "6")


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
