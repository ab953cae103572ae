"""The demo's child processes: the consumer service, and MLflow's page for a local store."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from deploy.settings.locations import check_home, home
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from tidecast.errors import ConfigError

SERVICE_LOG, PAGE_LOG = "demo-service.log", "demo-mlflow.log"


@contextmanager
def run_service(options: list[str], tracking_uri: str) -> Iterator[Callable[[], None]]:
    """Run the service as a child process; yields a function that raises ConfigError once it has exited."""
    check_home()
    home().mkdir(parents=True, exist_ok=True)
    log = home() / SERVICE_LOG
    with log.open("w") as output:
        command = [sys.executable, "-P", "-m", "tidecast", "serve", *options]
        own = {"TIDECAST_HOME": str(home()), "TIDECAST_TRACKING_URI": tracking_uri}  # hides its password from ps
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | own)  # noqa: S603

    def check() -> None:
        if process.poll() is not None:
            raise ConfigError(f"the service exited with {process.returncode}: {log.read_text().strip()[-500:]}")

    try:
        yield check
    finally:
        process.terminate()
        process.wait()


def mlflow_page(registry: Registry, version: Version, stay: bool) -> AbstractContextManager[str]:
    """The address of a version's run: a server's, that of a child process if we stay, or the command for one."""
    if registry.tracking_uri.startswith("sqlite") and stay:
        return _local_page(registry, version)
    page = registry.page(version)
    return nullcontext(page.replace("mlflow", program("mlflow"), 1) if page.startswith("mlflow ") else page)


def program(name: str) -> str:
    """The command that runs a program of this environment."""
    return name if shutil.which(name) else os.path.relpath(Path(sys.executable).parent / name)


@contextmanager
def _local_page(registry: Registry, version: Version) -> Iterator[str]:
    """Run MLflow's pages for a local store as a child process; yields the address of the version's run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (home() / PAGE_LOG).open("w") as output:
        command += ["--backend-store-uri", registry.tracking_uri]
        page = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603
    try:
        yield f"{registry.page(version, f'http://127.0.0.1:{port}')} (in a few seconds)"
    finally:
        page.terminate()
        page.wait()
