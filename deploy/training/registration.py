"""Registering a fitted model of any task as a version."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from deploy.console import progress
from model.artifacts.export import Examples, save
from model.artifacts.registry import Registry
from model.artifacts.versions import CHAMPION, Version
from model.card import AnyCard
from model.training.loop import Epoch, OnStep
from tidecast.errors import CorruptModel, UnknownModel

logger = logging.getLogger(__name__)

EXAMPLES = 64
"""Rows that torch and onnxruntime are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A fitted model, and all that is logged about its training."""

    model: nn.Module
    card: AnyCard
    history: Sequence[Epoch]
    loss_name: str
    """The metric that the validation loss is logged as."""
    examples: Examples
    """Real rows as named inputs, to compare torch and onnxruntime on."""
    params: Mapping[str, object]
    tags: Mapping[str, str]
    draw: Callable[[Path], None]
    """Draws plots into a folder."""

    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.history[int(self.card.metrics["best_epoch"]) - 1]


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered version, and the candidate that it was."""

    version: Version
    candidate: Candidate

    def summary(self, **shape: object) -> dict[str, object]:
        """What `tidecast train --json` prints; `shape` is specific to the task."""
        card, history = self.candidate.card, self.candidate.history
        return {
            "model": self.version.label,
            "task": card.task,
            "arch": card.arch,
            **shape,
            "epochs": len(history),
            "seconds": round(sum(epoch.seconds for epoch in history), 2),
            **card.metrics,
            "sha256": self.version.sha256,
        }


def find_champion(registry: Registry, name: str) -> Version | None:
    """A name's champion, if it has one.

    Raises RegistryError, so that an unavailable registry fails a command before its training.
    """
    with suppress(UnknownModel, CorruptModel):
        return registry.resolve(name)
    return None


@contextmanager
def training_progress(format_epoch: Callable[[Epoch], str]) -> Iterator[OnStep]:
    """Shows a training's progress, in steps, and its latest epoch."""
    with progress("train", 1) as report:
        yield lambda done, total, history: report(
            done, f"epoch {len(history)}: {format_epoch(history[-1])}" if history else "", total
        )


def register(
    candidate: Candidate, registry: Registry, on_step: Callable[[str], None] = lambda _: None
) -> RegisteredModel:
    """Export a candidate, verify the file, log its run and register it; the first version of a name becomes champion.

    `on_step` is called with the name of each step done, as by `Registry.record`.
    """
    card = candidate.card
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(candidate.model, card, folder, candidate.examples)
        candidate.draw(folder)
        version = registry.record(
            card.name,
            folder,
            params={"task": card.task, **candidate.params},
            history=[
                {"train_loss": epoch.train_loss, candidate.loss_name: epoch.validation_loss}
                for epoch in candidate.history
            ],
            metrics=card.metrics,
            tags={**candidate.tags, **{name: f"{value:.6g}" for name, value in card.metrics.items()}},
            reached=on_step,
        )
    logger.info(f"registered {version.label}: {_champion_note(version, registry)}")
    return RegisteredModel(version, candidate)


def _champion_note(version: Version, registry: Registry) -> str:
    if CHAMPION in version.aliases:
        return "the champion"
    champion = find_champion(registry, version.name)
    return "no champion" if champion is None else f"the champion is still {champion.label}"
