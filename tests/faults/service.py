"""`tidecast serve` as a process, and its supervisor."""

import contextlib
import os
import re
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
RESTARTED = re.compile("worker [0-9]+ (?:was killed by (SIG[A-Z]+)|ended with ([0-9]+)): it is started again")


class Unexpected(Exception):
    """A service or the cluster did not behave as the fault expects."""


class Service:
    """`tidecast serve` as a process; if supervised, it is restarted when it is killed or exits with 75.

    With several workers its own supervisor restarts those; what would kill the service kills one of them. If it is not
    supervised, all end as soon as one does.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        folder: Path,
        failpoint: str,
        supervised: bool,
        workers: int = 1,
    ) -> None:
        self._ends: list[int] = []
        self._workers, self._kills = workers, 0
        command = command if workers == 1 else [*command, "--workers", str(workers)]
        self._command, self._environment, self._folder = command, environment, folder
        self._errors = folder / f"{time.monotonic_ns()}.err"
        self._supervised = supervised
        self.zombie = False
        """Whether it was stopped until others took over."""
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
                start_new_session=True,
            )

    @property
    def codes(self) -> list[int]:
        """What it ended with each time, and what those of its workers did that were started again."""
        return [*self._worker_codes(), *self._ends]

    def _worker_codes(self) -> list[int]:
        said = [-signal.Signals[name] if name else int(code) for name, code in RESTARTED.findall(self.stderr)]
        unsaid = self._kills - said.count(-signal.SIGKILL)  # where stderr takes nothing
        return [*said, *([-signal.SIGKILL] * unsaid)]

    def _wait(self) -> int:
        """The exit code of this run."""
        while self._workers > 1 and not self._supervised and self._process.poll() is None:
            if ended := self._worker_codes():
                self._kill_all()
                self._process.wait()
                return ended[0]
            time.sleep(0.05)
        code = self._process.wait()
        return code if self._workers == 1 or code < 128 else 128 - code  # as a shell says that a worker was killed

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            code = self._wait()
            self._ends.append(code)
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
        return bool(self._ends) and self._ends[-1] not in (*RESTART_CODES, 0)

    def _serving(self) -> list[int]:
        """The processes that serve: its own, or its workers', which are forked from one of its children."""
        if self._workers == 1:
            return [self._process.pid]
        return [pid for child in _children(self._process.pid) for pid in _children(child)]

    def is_stopped(self) -> bool:
        """Whether one of them is stopped by SIGSTOP."""
        with contextlib.suppress(OSError):
            states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in self._serving()]
            return "T" in states
        return False

    def peak(self) -> float:
        """The most memory that any of them has had, in MiB; 0 while it is started again."""
        peaks = [0.0]
        for pid in self._serving():
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{pid}/status").read_text()
                peaks.append(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
        return max(peaks)

    def kill(self) -> None:
        """SIGKILL, of one after the other of several workers, or of all if none is to be started again."""
        if self._workers == 1 or not self._supervised:
            self._kill_all()
            return
        until = time.monotonic() + 10
        while not (serving := self._serving()) and time.monotonic() < until:
            time.sleep(0.05)
        if serving:
            os.kill(sorted(serving)[self._kills % len(serving)], signal.SIGKILL)
            self._kills += 1

    def _kill_all(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def resume(self) -> None:
        """SIGCONT."""
        for pid in self._serving():
            os.kill(pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without a restart."""
        with self._lock:
            self._stopping.set()
            self._process.terminate()

    def wait_for_exit(self, seconds: float = 60) -> int:
        """The exit code, once it has exited and is not restarted."""
        if not self._exited.wait(seconds):
            raise Unexpected(f"a service did not end in {seconds:g} s")
        return self._ends[-1]

    def close(self) -> None:
        """SIGKILL, without a restart."""
        with self._lock:
            self._stopping.set()
            self._kill_all()
        self._exited.wait(10)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
