"""The registry of models as the page shows it: asked in a thread of its own, at most every ten seconds, and only while
somebody looks. Nothing else waits for it.
"""

import threading
import time
from contextlib import suppress
from typing import Any

from tidecast.errors import TidecastError

EVERY_S = 10.0
SHOWN = 50
"""Newest versions that are shown."""


class RegistryView:
    """What the registry says of the versions of one model."""

    def __init__(self, uri: str, name: str | None) -> None:
        self._uri, self.name = uri, name
        self._asked = 0.0
        self._busy = threading.Lock()
        self.facts: dict[str, Any] | None = None
        self.versions: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []

    def refresh(self, name: str | None) -> None:
        """Ask again in the background, if it is time; `name` is the model's as forecasts carry it."""
        self.name = self.name or name
        if self.name and time.monotonic() - self._asked > EVERY_S and self._busy.acquire(blocking=False):
            self._asked = time.monotonic()
            threading.Thread(target=self._ask, name="registry", daemon=True).start()

    def _ask(self) -> None:
        from model.artifacts.registry import Registry

        try:
            registry = Registry(self._uri)
            facts = {"uri": registry.redacted_uri, "name": self.name, "error": None}
            if registry.absent:
                self.facts = None
                return
            assert self.name is not None
            try:
                found = registry.versions(self.name)
            except TidecastError as error:
                self.facts = facts | {"error": str(error)}
                return
            self.versions = [_facts(version) for version in found[:SHOWN]]
            self.refused = [
                {"label": version.label, "reason": f"{reason} (in {group})" if group else reason, "ts": None}
                for version in found
                for group, reason in version.refusals.items()
            ]
            self.facts = facts
        except TidecastError as error:
            self.facts = {"uri": None, "name": self.name, "error": str(error)}
        except Exception as error:  # a library's, such as a missing one of a local store
            self.facts = {"uri": None, "name": self.name, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        finally:
            self._asked = time.monotonic()
            self._busy.release()


def _facts(version: Any) -> dict[str, Any]:
    tags = version.tags
    verdict = None
    if "verdict" in tags:
        promoted = tags.get("tidecast.promoted", "")
        verdict = {
            "accepted": tags["verdict"] in ("promote", "first") or bool(promoted),
            "decision": tags["verdict"],
            "reason": tags.get("why", ""),
            "ts": int(promoted) if promoted.isdecimal() else None,
        }
    scores = dict[str, float | str]()
    for name, value in tags.items():
        if name in ("validation_mse", "gain", "trained_until", "against") or (
            name[:6] == "naive_" and name[-4:] == "_mse"
        ):
            scores[name] = value
            with suppress(ValueError):
                scores[name] = float(value)
    age = max(0, round(time.time() - version.created / 1000))
    return {
        "version": version.number,
        "label": version.label,
        "aliases": list(version.aliases),
        "created": version.created,
        "age_s": age,
        "verdict": verdict,
        "scores": scores,
    }
