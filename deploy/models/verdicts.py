"""What was found of model files, kept by digest: on this machine, and in the registry for every other member.

A refusal holds until the file is another, whatever the version is called. It is noted in both places: the registry may
be out of reach at the next start, and another member has another disk. What can't be written is kept in memory.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import onnxruntime as ort
from filelock import FileLock, Timeout

from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from tidecast.errors import RegistryError

TRIED_WITHIN_S = 240.0
"""How long another process may try a file before this one does so too: twice what a canary may take."""


class _Note(msgspec.Struct):
    """A file's verdict: refused for a reason, or passed with this onnxruntime."""

    label: str
    reason: str = ""
    passed: str = ""


class Verdicts:
    """The refusals that hold for a consumer group, and the files that have passed."""

    def __init__(self, folder: Path, registry: Registry, group: str) -> None:
        self._folder, self._registry, self._group = folder, registry, group
        self._in_memory: dict[str, _Note] = {}

    def known(self, digest: str, version: Version | None = None) -> str:
        """Why a file, or a version's, must not serve; empty if that is not known. Writes nothing."""
        tagged = version.refusals if version else {}
        notes = {group: self._read(digest, group) for group in ("", self._group)}
        reasons = [(note.reason if note else "") or tagged.get(group, "") for group, note in notes.items()]
        return next(filter(None, reasons), "")

    def refusal(self, digest: str, version: Version | None = None) -> str:
        """The same; and what only the registry or only this machine knows is noted on the other side too."""
        if version:
            self._share(version)
        return self.known(digest, version)

    def refuse(self, digest: str, label: str, reason: str, version: Version | None, *, fit: bool = False) -> None:
        """Note a refusal: of the file, or if it is about its `fit` to the group's windows, in this group."""
        group = self._group if fit else ""
        self._write(digest, group, _Note(label, reason=reason))
        if version:
            self._tag(version, reason, group)

    @contextmanager
    def trial(self, digest: str) -> Iterator[None]:
        """Only one process of this machine tries a file at a time: the others wait for what it finds.

        Of workers that start together, as of those that follow one alias, the first one has a canary for all.
        """
        with ExitStack() as stack:
            if not self.has_passed(digest):
                with suppress(OSError, NotImplementedError, Timeout):  # no folder, or a file system without locks
                    self._folder.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(FileLock(self._folder / f"{digest}.lock", timeout=TRIED_WITHIN_S))
            yield

    def has_passed(self, digest: str) -> bool:
        """Whether this file has passed its canary on this machine, with this onnxruntime."""
        note = self._read(digest, "")
        return note is not None and note.passed == ort.__version__

    def note_pass(self, digest: str, label: str) -> None:
        """Note that a file has passed."""
        self._write(digest, "", _Note(label, passed=ort.__version__))

    def _share(self, version: Version) -> None:
        tagged = version.refusals
        for group in ("", self._group):
            note = self._read(version.sha256, group)
            if note and note.reason and group not in tagged:
                self._tag(version, note.reason, group)
            elif group in tagged and not (note and note.reason):
                self._write(version.sha256, group, _Note(version.label, reason=tagged[group]))

    def _tag(self, version: Version, reason: str, group: str) -> None:
        with suppress(RegistryError):  # it is tried again each time that the version is asked for
            self._registry.refuse(version, reason, group)

    def _path(self, digest: str, group: str) -> Path:
        return self._folder / ".".join(filter(None, (digest, group, "json")))

    def _read(self, digest: str, group: str) -> _Note | None:
        path = self._path(digest, group)
        if found := self._in_memory.get(path.name):  # newer than what is there
            return found
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(path.read_bytes(), type=_Note)
        return None

    def _write(self, digest: str, group: str, note: _Note) -> None:
        path = self._path(digest, group)
        self._in_memory[path.name] = note
        with suppress(OSError):
            write_atomically(path, msgspec.json.encode(note))
            self._in_memory.pop(path.name, None)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that no reader ever sees in part; the folder is made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
