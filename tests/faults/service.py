"""`tidecast serve` as a process, and its supervisor."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SESSION_S = 10
SETTINGS = {
    "TIDECAST_KAFKA_SESSION_S": str(SESSION_S),
    "TIDECAST_KAFKA_REQUEST_S": "10",
    "TIDECAST_KAFKA_DELIVERY_S": "12",
    "TIDECAST_KAFKA_TRANSACTION_S": "15",
}
RESTART_CODES = (-signal.SIGKILL, os.EX_TEMPFAIL)
"""The exit codes after which a supervisor restarts a service."""


class Unexpected(Exception):
    """A service or the cluster did not behave as the fault expects."""


class Service:
    """`tidecast serve` as a process; if supervised, it is restarted when it is killed or exits with 75."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], folder: Path, failpoint: str, supervised: bool
    ) -> None:
        self.codes: list[int] = []
        self._command, self._environment, self._folder = command, environment, folder
        self._errors = folder / f"{time.monotonic_ns()}.err"
        self._supervised = supervised
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._exited = threading.Event()
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
            if code not in RESTART_CODES or not self._supervised:
                break
            # A service that fails at once is restarted with a delay, to leave the CPU to the others.
            if self._stopping.wait(0 if time.monotonic() - began > 5 else 1):
                break
            with self._lock:
                if self._stopping.is_set():
                    break
                self._launch("")
        self._exited.set()

    @property
    def stderr(self) -> str:
        """The stderr of all its runs."""
        return self._errors.read_text(errors="replace")

    @property
    def failed(self) -> bool:
        """Whether it exited with a code after which it is not restarted."""
        return bool(self.codes) and self.codes[-1] not in (*RESTART_CODES, 0)

    def is_stopped(self) -> bool:
        """Whether it is stopped by SIGSTOP."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def peak(self) -> float:
        """The peak memory of the current process, in MiB; 0 while it is started again."""
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) / 1024
        return 0.0

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without a restart."""
        with self._lock:
            self._stopping.set()
            self._process.terminate()

    def wait_for_exit(self, seconds: float = 60) -> int:
        """The exit code, once it has exited and is not restarted."""
        if not self._exited.wait(seconds):
            raise Unexpected(f"a service did not end in {seconds:g} s")
        return self.codes[-1]

    def close(self) -> None:
        """SIGKILL, without a restart."""
        with self._lock:
            self._stopping.set()
            self._process.kill()
        self._exited.wait(10)
