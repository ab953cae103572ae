"""What the demo runs beside itself: the consumer service, and MLflow's page on a local store."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from deploy.settings.locations import HOME
from model.artifacts.registry import Registry
from tidecast.errors import ConfigError

SERVICE_LOG = HOME / "demo-service.log"
PAGE_LOG = HOME / "demo-mlflow.log"


@contextmanager
def run_service(options: list[str], tracking_uri: str) -> Iterator[Callable[[], None]]:
    """The real service, as a process of its own; yields a check that raises if it has ended."""
    HOME.mkdir(exist_ok=True)
    with SERVICE_LOG.open("w") as output:
        command = [sys.executable, "-P", "-m", "tidecast", "serve", *options]
        environment = os.environ | {"TIDECAST_TRACKING_URI": tracking_uri}  # a flag would show its password
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603

    def check() -> None:
        if process.poll() is not None:
            raise ConfigError(f"the service ended with {process.returncode}: {SERVICE_LOG.read_text().strip()[-500:]}")

    try:
        yield check
    finally:
        process.terminate()
        process.wait()


def mlflow_page(registry: Registry, stay: bool) -> AbstractContextManager[str]:
    """Where MLflow's page is: a server's address, one of our own while we stay, or the command that shows it."""
    if not registry.tracking_uri.startswith("sqlite"):
        return nullcontext(registry.redacted_uri)
    if stay:
        return _local_page(registry.tracking_uri)
    return nullcontext(f"{program('mlflow')} ui --backend-store-uri {registry.tracking_uri}")


def program(name: str) -> str:
    """What to type to run a program of this environment."""
    return name if shutil.which(name) else os.path.relpath(Path(sys.executable).parent / name)


@contextmanager
def _local_page(tracking_uri: str) -> Iterator[str]:
    """MLflow's own page on a local store, as a process of its own; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with PAGE_LOG.open("w") as output:
        command += ["--backend-store-uri", tracking_uri]
        page = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603
    try:
        yield f"http://127.0.0.1:{port} (in a few seconds)"
    finally:
        page.terminate()
        page.wait()
