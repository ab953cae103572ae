"""The registry of models as the page shows it: asked in a thread of its own, once the model's name is known, then at
most every ten seconds while somebody looks. Nothing else waits for it.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from model.artifacts.registry import PROMOTED, Registry
from model.artifacts.versions import Version
from pipeline.formats.dead_letters import one_line
from tidecast.errors import TidecastError

EVERY_S = 10.0
SHOWN = 50
"""Newest versions that are shown."""
SHOWN_TAGS = ("validation_mse", "gain", "trained_until", "against")


class RegistryView:
    """What the registry says of the versions of one model."""

    def __init__(self, uri: str, name: str | None) -> None:
        """`name` is the model's; None: as the forecasts carry it."""
        self._uri, self._name, self._asked_for = uri, name, name
        self._registry: Registry | None = None
        self._asked = float("-inf")
        self._busy = threading.Lock()
        self.state: Literal["loading", "ok", "none", "error"] = "loading"
        self._error: str | None = None
        self.versions: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []
        try:
            self._registry = Registry(uri)
        except TidecastError as error:
            self.state, self._error = "error", self._shown(str(error))
        if not self.present and self.state == "loading":
            self.state = "none"

    @property
    def facts(self) -> dict[str, Any]:
        """Which registry it is, and whether it answers."""
        uri = self._registry.redacted_uri if self._registry is not None and self.present else None
        return {
            "state": self.state,
            "uri": uri and self._shown(uri),
            "name": self._asked_for,
            "error": self._error,
        }

    def _shown(self, text: str) -> str:
        """Text about the registry, without the folders of a local one."""
        if not self._uri.startswith("sqlite:"):
            return text
        path = Path(self._uri.removeprefix("sqlite:///"))
        folders = {str(path.parent), str(path.parent.resolve())} - {".", "/"}
        for folder in sorted(folders, key=len, reverse=True):
            text = text.replace(f"{folder}/", "")
        return text

    @property
    def present(self) -> bool:
        """Whether there is one to ask."""
        return self._registry is not None and not self._registry.absent

    def refresh(self, name: str | None) -> None:
        """Ask again in the background, if it is time; `name` is the model's as the forecasts carry it."""
        name = self._name or name
        due = time.monotonic() - self._asked > EVERY_S
        if name and due and self.present and self._busy.acquire(blocking=False):
            self._asked, self._asked_for = time.monotonic(), name
            threading.Thread(target=self._ask, args=(name,), name="registry", daemon=True).start()

    def _ask(self, name: str) -> None:
        registry, error = self._registry, None
        assert registry is not None
        try:
            found = registry.versions(name)
            self.versions = [_facts(version) for version in found[:SHOWN]]
            self.refused = [
                {"label": version.label, "reason": f"{reason} (in {group})" if group else reason, "ts": None}
                for version in found[:SHOWN]
                for group, reason in version.refusals.items()
            ]
        except TidecastError as failed:
            error = str(failed)
        except Exception as failed:  # whatever a library raises
            error = one_line(f"{type(failed).__name__}: {failed}")
        finally:
            self._error = None if error is None else self._shown(error)
            self.state = "ok" if error is None else "error"
            self._busy.release()


def _facts(version: Version) -> dict[str, Any]:
    tags = version.tags
    promoted, scores = tags.get(PROMOTED, ""), dict[str, float | str]()
    for name, value in tags.items():
        if name in SHOWN_TAGS or (name.startswith("naive_") and name.endswith("_mse")):
            scores[name] = value
            with suppress(ValueError):
                scores[name] = float(value)
    return {
        "version": version.number,
        "label": version.label,
        "aliases": list(version.aliases),
        "created": version.created,
        "age_s": max(0, round(time.time() - version.created / 1000)),
        "verdict": _verdict(tags, promoted) if "verdict" in tags else None,
        "scores": scores,
    }


def _verdict(tags: Mapping[str, str], promoted: str) -> dict[str, Any]:
    return {
        "accepted": bool(promoted) or tags["verdict"] in ("promote", "first"),
        "decision": tags["verdict"],
        "reason": tags.get("why", ""),
        "ts": int(promoted) if promoted.isdecimal() else None,
    }
