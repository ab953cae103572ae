"""The demo's child processes: the consumer service, the page that shows it, and MLflow's page for a local store."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

from deploy.settings.locations import check_home, home
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from tidecast.errors import ConfigError

SERVICE_LOG, DASHBOARD_LOG, PAGE_LOG = "demo-service.log", "demo-dashboard.log", "demo-mlflow.log"
DASHBOARD_PORT = 8765
NO_PAGE = "a page of it needs tidecast[dashboard]; all is shown here"


@contextmanager
def run_service(options: list[str], tracking_uri: str) -> Iterator[Callable[[], None]]:
    """Run the service as a child process; yields a function that raises ConfigError once it has exited."""
    log = home() / SERVICE_LOG
    with _running("serve", options, tracking_uri, log) as process:

        def check() -> None:
            if process.poll() is not None:
                raise ConfigError(f"the service exited with {process.returncode}: {log.read_text().strip()[-500:]}")

        yield check


@contextmanager
def run_dashboard(options: list[str], tracking_uri: str) -> Iterator[str]:
    """Run the page as a child process, where it is installed; yields a line that says where it is."""
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        yield NO_PAGE
        return
    port = _port(DASHBOARD_PORT)
    listen = ["--host", "127.0.0.1", "--port", str(port)]
    with _running("dashboard", [*options, *listen], tracking_uri, home() / DASHBOARD_LOG):
        yield f"watch it on http://127.0.0.1:{port}/, or here"


@contextmanager
def _running(command: str, options: list[str], tracking_uri: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command of ours as a child process that writes to a log file."""
    check_home()
    home().mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        own = {"TIDECAST_HOME": str(home()), "TIDECAST_TRACKING_URI": tracking_uri}  # hides its password from ps
        line = [sys.executable, "-P", "-m", "tidecast", command, *options]
        process = subprocess.Popen(line, stdout=output, stderr=output, env=os.environ | own)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _port(wanted: int) -> int:
    """A port of this machine, or any free one where that is taken; 0 wants any."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", wanted))
        except OSError:
            return _port(0)
        return int(free.getsockname()[1])


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
    port = str(_port(0))
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
