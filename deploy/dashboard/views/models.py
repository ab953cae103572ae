"""The models as the page shows them: versions, what each has answered, its scores, and whether the last swap helped."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from deploy.dashboard.topics.fleet import COUNT, means
from deploy.dashboard.topics.state import State
from deploy.dashboard.views.parameters import Query
from deploy.dashboard.views.registry import RegistryView
from deploy.dashboard.views.scores import as_dict
from deploy.dashboard.views.shadow import shadow_rows
from deploy.dashboard.views.swap import last_swap
from model.online.scores import SUMS

POINTS = 300
"""Most points of a line over time."""
SCORED_S = 10.0
"""Between two computations of what takes long."""


class ModelsView:
    """What is computed again at most every ten seconds is kept."""

    def __init__(self, state: State, registry: RegistryView) -> None:
        self._state, self._registry = state, registry
        self._kept: dict[str, tuple[float, Any]] = {}
        self._scored: tuple[int, float, list[dict[str, Any]]] | None = None

    def view(self, _: Query | None = None) -> dict[str, Any]:
        """/api/models."""
        state = self._state
        with state.lock:
            found = {
                "answers": state.models.answered,
                "live": self._live(),
                "shadow": self._seldom("shadow", shadow_rows),
                "swaps": state.models.swaps,
                "last_swap": self._seldom("swap", last_swap),
                "skill_over_time": self._over_time(),
            }
            name = state.models.name
        self._registry.refresh(name)
        return {
            "registry": self._registry.facts,
            "versions": [dict(each) for each in self._registry.versions],
            "refused": list(self._registry.refused),
            **found,
        }

    def _seldom(self, name: str, compute: Callable[[State], Any]) -> Any:
        """Compute something again at most every ten seconds."""
        if time.monotonic() - self._kept.get(name, (float("-inf"), None))[0] > SCORED_S:
            self._kept[name] = time.monotonic(), compute(self._state)
        return self._kept[name][1]

    def _live(self) -> list[dict[str, Any]]:
        """Scores by model, computed again once they have changed, at most every ten seconds."""
        graded, now = self._state.graded, time.monotonic()
        kept = self._scored
        if kept is None or (
            kept[0] != graded.version and now - kept[1] > min(SCORED_S, 0.001 * len(graded.totals.parts))
        ):
            self._scored = kept = graded.version, now, list(map(as_dict, graded.totals.rows("model")))
        return kept[2]

    def _over_time(self) -> list[dict[str, Any]]:
        graded = self._state.graded
        starts = sorted({start for start, _ in graded.over_time})
        width = max(1, -(-len(starts) // POINTS))
        bucket_of = {start: starts[at - at % width] for at, start in enumerate(starts)}
        sums: dict[str, dict[int, Any]] = {}
        for (start, model), each in graded.over_time.items():
            of = sums.setdefault(model, {})
            of[bucket_of[start]] = of.get(bucket_of[start], np.zeros(len(SUMS))) + each
        lines = []
        for model, of in sums.items():
            times = sorted(at for at in of if of[at][COUNT] > 0)
            scored = [means(of[at]) for at in times]
            lines.append(
                {
                    "model": model,
                    "ts": times,
                    "skill": [each["skill"] for each in scored],
                    "coverage": [each["coverage"] for each in scored],
                    "count": [round(of[at][COUNT]) for at in times],
                }
            )
        return sorted(lines, key=lambda line: line["ts"][:1])
