"""What a service says of itself to whoever asks, over HTTP or as one worker of several."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from deploy.serving.monitoring.stats import ServiceStats

if TYPE_CHECKING:
    from deploy.serving.monitoring.exposition import Exposition, Scope


class Report(Protocol):
    """What is told at /health, /ready and /metrics."""

    def hanging(self) -> str:
        """Why it is not alive; empty if it is."""

    def missing(self) -> str:
        """What it lacks before it serves; empty if it does."""

    def metrics(self) -> bytes:
        """In Prometheus's text format."""


class ServiceReport:
    """That of one service; before there is one, that its model is not loaded."""

    def __init__(self, scope: "Scope" = "all") -> None:
        """`scope` is which metrics it has."""
        self._scope = scope
        self._stats = ServiceStats("forecasts", missing="its model is not loaded yet")
        self._is_alive: Callable[[], bool] = lambda: True

    def attach(self, stats: ServiceStats, is_alive: Callable[[], bool]) -> None:
        """Tell of this service from now on."""
        self._stats, self._is_alive = stats, is_alive

    def hanging(self) -> str:
        """Why it is not alive; empty if it is."""
        return "" if self._is_alive() else "its loop stands still, for longer than any call may take"

    def missing(self) -> str:
        """What it lacks before it serves; empty if it does."""
        return self._stats.missing

    def metrics(self) -> bytes:
        """In Prometheus's text format."""
        return self._exposition.render()

    @cached_property
    def _exposition(self) -> "Exposition":
        from deploy.serving.monitoring.exposition import Exposition  # nobody may ever ask

        return Exposition(lambda: self._stats, self._scope)
