"""Versions that are refused, a registry that goes away, a cache that is wiped: a good model serves all the same.

The registry is an MLflow server, a process of its own; each member has a folder of its own, as on its own machine.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import onnx
from faults import BOTH, Figure, fault
from load import RECORDS
from oracle import Oracle
from service import Service, Unexpected
from world import World

from model.artifacts.registry import Registry
from model.artifacts.versions import MODEL_FILE, Version

HALF = RECORDS // 2
FOLLOW = ("--follow", "1s")
REFUSED = "tiny/2 is rejected: its output is not finite"


class MlflowServer:
    """An MLflow server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url, self._folder = f"http://127.0.0.1:{self._port}", folder
        folder.mkdir()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--serve-artifacts"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 120
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(URLError, ConnectionError), urlopen(f"{self.url}/health"):
                return
            time.sleep(0.1)
        raise Unexpected(f"MLflow does not start: {(self._folder / 'log').read_text()}")

    def stop(self) -> None:
        """SIGKILL it and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()


class Models:
    """The versions of a model in a registry; their files by label."""

    def __init__(self, world: World, url: str) -> None:
        self.registry, self._folder, self._model = Registry(url), world.folder, world.model
        self.files: dict[str, Path] = {}

    def promote(self, factor: float) -> Version:
        """Register the world's model with its weights times a factor, and make it the champion."""
        run = self._folder / f"run-{len(self.files) + 1}"
        run.mkdir()
        model = onnx.load(self._model)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                values = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, run / MODEL_FILE)
        with self.registry.run("tiny") as training:
            version = self.registry.register("tiny", training, run, tags={})
        self.files[version.label] = run / MODEL_FILE
        self.registry.promote(version)
        return version


@contextlib.contextmanager
def registry(world: World) -> Iterator[tuple[MlflowServer, Models, Service]]:
    """A server with tiny/1, its champion, which a member follows; that ends, having read all, before the server."""
    server = MlflowServer(world.folder / "mlflow")
    server.start()
    try:
        models = Models(world, server.url)
        version = models.promote(1.0)
        world.model, world.oracle = "tiny@champion", Oracle(models.files[version.label], version.label)
        yield server, models, member(world, "a", server)
        world.until_drained()
        world.stop()
    finally:
        server.stop()


def member(world: World, name: str, server: MlflowServer) -> Service:
    """A member with a folder of its own."""
    home = {"TIDECAST_HOME": str(world.folder / name)}
    return world.serve(name, *FOLLOW, environment={**home, "TIDECAST_TRACKING_URI": server.url})


def has_said(world: World, service: Service, line: str) -> None:
    """Wait until a service has said a line."""
    world.until(lambda: line in service.stderr, f"it did not say {line!r}: {service.stderr}")


@fault(
    "a version refused while it is served; then a restart, a restart without the registry, and a new member",
    "refused by all with the reason in the registry, the last good version serves; each once",
    BOTH,
)
def refused_then_restarted(world: World) -> None:
    with registry(world) as (server, models, service):
        with world.sending(at_least=HALF):
            world.until_commit()
            bad = models.promote(np.nan)
            has_said(world, service, f"still serving tiny/1: {REFUSED}")
        if list(models.registry.resolve(bad.label).refusals.values()) != ["its output is not finite"]:
            raise Unexpected("the registry does not tell")
        service = restarted(world, service, server, f"{REFUSED}; using tiny/1, the last good one")
        server.stop()
        restarted(world, service, server, "; using tiny/1, the last good one")
        server.start()
        new = member(world, "b", server)
        has_said(world, new, f"{REFUSED}; using tiny/1, the last good one")
        world.load.send(HALF)
        world.until_drained()
        if "Traceback" in new.stderr:
            raise Unexpected(new.stderr)


def restarted(world: World, service: Service, server: MlflowServer, line: str) -> Service:
    """Stop a member, and start it again: it must say a line."""
    service.terminate()
    service.wait_for_exit()
    world.services.remove(service)
    again = member(world, "a", server)
    has_said(world, again, line)
    return again


@fault(
    "the registry goes away for 20 s, while a new version is on its way",
    "said once, and once when it is over; the old version serves; the new one within 60 s; each once",
    BOTH,
)
def registry_away(world: World) -> Figure:
    with registry(world) as (server, models, service):
        with world.sending(rate=200, at_least=HALF):
            world.until_commit()
            server.stop()
            has_said(world, service, "still serving tiny/1: the registry is unavailable")
            world.wait(20)
            server.start()
            began = time.monotonic()
            has_said(world, service, "the registry is available again")
            healed = time.monotonic() - began
        if service.stderr.count("the registry is unavailable") != world.workers:  # each says it once
            raise Unexpected(f"that is said again and again: {service.stderr}")
        world.until_drained()
        second = models.promote(1.1)
        has_said(world, service, f"now serving {second.label}")
        return Figure("healed", healed, 60)


@fault(
    "the cache wiped again and again during a swap; then a restart",
    "swapped all the same; each once",
    BOTH,
)
def cache_wiped(world: World) -> None:
    with registry(world) as (server, models, service):
        world.load.send(HALF)
        world.until_drained()
        over = threading.Event()
        wiping = threading.Thread(target=wipe, args=(world.folder / "a" / "models", over), daemon=True)
        wiping.start()
        second = models.promote(1.1)
        world.wait(5)
        over.set()
        wiping.join()
        has_said(world, service, f"now serving {second.label}")
        service = restarted(world, service, server, f"{second.label} on cpu")
        if models.registry.resolve(second.label).refusals:
            raise Unexpected("it was refused")
        world.until_drained()


def wipe(folder: Path, over: threading.Event) -> None:
    """Delete a folder whenever it is there."""
    while not over.wait(0.001):
        shutil.rmtree(folder, ignore_errors=True)
