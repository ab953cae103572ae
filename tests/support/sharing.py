"""What a run of the tests makes or starts once, however many workers it has."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

_started: list["subprocess.Popen[bytes]"] = []
"""A process outlives the worker that started it, if another worker still uses it: nobody here waits for its end."""


class Shared:
    """A folder that all workers of a run share."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True)

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder that `make` has filled: the first who asks for it does that, all others wait and find it."""
        folder, done = self._root / name, self._root / f"{name}.done"
        with self._lock(name):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    @contextmanager
    def server(
        self, name: str, start: Callable[[Path], str], stop: Callable[[Path], None]
    ) -> Iterator[tuple[str, Path]]:
        """The address of a server and its folder: its first user starts it, its last one stops it."""
        address, folder = self._enter(name, start, stop)
        try:
            yield address, folder
        finally:
            self._leave(name, stop)

    def _enter(self, name: str, start: Callable[[Path], str], stop: Callable[[Path], None]) -> tuple[str, Path]:
        file = self._root / f"{name}.json"
        with self._lock(name):
            if file.exists():
                users, address, folder = json.loads(file.read_text())
            else:
                users, folder = 0, tempfile.mkdtemp(prefix=f"{name}-", dir=self._root)
                try:
                    address = start(Path(folder))
                except BaseException:
                    stop(Path(folder))
                    raise
            file.write_text(json.dumps([users + 1, address, folder]))
        return address, Path(folder)

    def _leave(self, name: str, stop: Callable[[Path], None]) -> None:
        file = self._root / f"{name}.json"
        with self._lock(name):
            users, address, folder = json.loads(file.read_text())
            if users > 1:
                file.write_text(json.dumps([users - 1, address, folder]))
            else:
                file.unlink()
                stop(Path(folder))

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._root / f"{name}.lock")


def start_process(
    folder: Path, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """A process in a session of its own, which logs to a file in the folder; `kill_process` ends it from anywhere."""
    with (folder / "log").open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    _started.append(process)
    (folder / "pid").write_text(str(process.pid))
    return process


def kill_process(folder: Path) -> None:
    """Kill what `start_process` started in this folder, and its children."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
