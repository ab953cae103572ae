"""How tests wait for what a service does, and end it: by conditions, with a patience that only a failure uses up."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 180
"""On a machine under load a process takes a minute to start."""


def until(
    condition: Callable[[], bool], *services: "subprocess.Popen[Any]", meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Wait for a condition, as long as the services live, and do something again and again meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        for service in services:
            assert service.poll() is None, f"the service ended: {service.communicate()[1]}"
        assert time.monotonic() < deadline, "it did not happen in time"
        meanwhile()
        time.sleep(0.02)


def ended(service: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """The code that a service ends with by itself, and what it wrote to stdout and stderr."""
    out, err = service.communicate(timeout=PATIENCE_S)
    return service.returncode, out, err


def stop(service: "subprocess.Popen[str]") -> dict[str, Any]:
    """SIGTERM a service once it has said what it does, as it listens from then on; the JSON object it ends with."""
    assert service.stderr
    next((line for line in service.stderr if " -> " in line), None)
    service.terminate()
    code, out, err = ended(service)
    assert code == 0, err
    summary: dict[str, Any] = json.loads(out.splitlines()[-1])
    return summary


class Idle(threading.Event):
    """Set when several polls in a row have returned no records."""

    def __init__(self, progress: Callable[[], int]) -> None:
        super().__init__()
        self._progress, self._last, self._unchanged = progress, -1, 0

    def is_set(self) -> bool:
        self._unchanged = self._unchanged + 1 if self._progress() == self._last else 0
        self._last = self._progress()
        return self._unchanged > 2
