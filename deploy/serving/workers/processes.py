"""Processes of workers, forked from one that has loaded what they need.

It has no threads and no connections, so a fork of it is safe, which one of the supervisor would not be; and a worker
that is started again is there within milliseconds.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from deploy.serving.workers.said import Asked, Ended, Said

if TYPE_CHECKING:
    from deploy.serving.workers.worker import Work

PRELOADED = ("deploy.serving.workers.preload", "pipeline.log.kafka")
SAFE_PATH = "PYTHONSAFEPATH"
_forking = multiprocessing.get_context("forkserver")

Run = Callable[["Work", Connection], None]
"""What a worker's process runs, with its end of the pipe; it can be pickled."""


def load(*modules: str) -> None:
    """Begin to load these modules, and what a worker is made of, for all workers."""
    from multiprocessing.forkserver import ensure_running

    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"  # otherwise a user's file in this folder would hide a module of Python's
    try:
        _forking.set_forkserver_preload([*PRELOADED, *modules])
        ensure_running()
    finally:
        os.environ.pop(SAFE_PATH)
        if before is not None:
            os.environ[SAFE_PATH] = before


class Exit(NamedTuple):
    """How a process ended."""

    code: int
    """Of a signal its negative number."""
    ended: Ended | None
    """What the worker said at its end; None if it could not."""


class Worker:
    """A process that runs a worker, and this side of the pipe to it."""

    def __init__(self, run: Run, work: "Work") -> None:
        """Start it."""
        self._pipe, end = _forking.Pipe()
        self._process = _forking.Process(target=run, args=(work, end), name=f"worker-{work.number}", daemon=True)
        self._process.start()
        end.close()
        self._lock = threading.Lock()
        self._open: Asked | None = None
        self._ended: Ended | None = None
        self.heard = time.monotonic()
        """When it last said something; at first when it was started."""

    @property
    def sentinel(self) -> Any:
        """What `multiprocessing.connection.wait` takes, ready once it has ended."""
        return self._process.sentinel

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return not self._process.is_alive()

    def wait(self) -> None:
        """Wait for its end."""
        self._process.join()

    def ask(self, asked: Asked, within_s: float) -> str | None:
        """What it says of itself; None if it does not answer in time."""
        with self._lock, suppress(OSError, EOFError):
            if self._open is None:
                self._send(asked)
            while self._pipe.poll(within_s):
                said = self._receive()
                if isinstance(said, Ended):
                    self._ended = said
                    continue
                self._open = None
                if said.asked == asked:
                    return said.text
                self._send(asked)  # that was the answer to an earlier question, which came too late
        return None

    def _send(self, asked: Asked) -> None:
        self._pipe.send_bytes(msgspec.json.encode(asked))
        self._open = asked

    def _receive(self) -> Said:
        said: Said = msgspec.json.decode(self._pipe.recv_bytes(), type=Said)
        self.heard = time.monotonic()
        return said

    def stop(self) -> None:
        """Have it finish its batch and end; a signal would be lost on one that has just been started."""
        with suppress(OSError):
            self._pipe.send_bytes(msgspec.json.encode("stop"))

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def exit(self) -> Exit:
        """How it ended; it has."""
        self._process.join()
        with self._lock, suppress(OSError, EOFError):
            while self._pipe.poll():
                said = self._receive()
                self._ended = said if isinstance(said, Ended) else self._ended
        self._pipe.close()
        code = self._process.exitcode
        self._process.close()
        return Exit(code if code is not None else 255, self._ended)
