"""From a fitted model, whatever its task, to a registered version."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from deploy.console import progress, say
from model.artifacts.export import Examples, save
from model.artifacts.registry import Registry
from model.artifacts.versions import CHAMPION, Version
from model.card import AnyCard
from model.training.loop import Epoch, OnStep
from tidecast.errors import CorruptModel, UnknownModel

EXAMPLES = 64
"""Rows that torch and onnxruntime are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A fitted model with all that is kept of how it came about."""

    model: nn.Module
    card: AnyCard
    history: Sequence[Epoch]
    loss: str
    """What the validation loss is called among the run's metrics."""
    examples: Examples
    """Its named inputs for some real rows, to compare torch and onnxruntime on."""
    params: Mapping[str, object]
    tags: Mapping[str, str]
    draw: Callable[[Path], None]
    """Puts pictures into a folder."""

    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.history[int(self.card.metrics["best_epoch"]) - 1]


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered version and how it came about."""

    version: Version
    candidate: Candidate

    def summary(self, **shape: object) -> dict[str, object]:
        """What `tidecast train --json` prints; `shape` is the task's own."""
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


def champion(registry: Registry, name: str) -> Version | None:
    """What serves under a name, if anything does.

    Raises RegistryError: a registry out of reach is better known before the training.
    """
    with suppress(UnknownModel, CorruptModel):
        return registry.resolve(name)
    return None


@contextmanager
def watched(in_words: Callable[[Epoch], str]) -> Iterator[OnStep]:
    """Shows how far a training is, by its steps, with the newest epoch in words."""
    with progress("train", 1) as report:
        yield lambda done, total, history: report(
            done, f"epoch {len(history)}: {in_words(history[-1])}" if history else "", total
        )


def register(
    candidate: Candidate, registry: Registry, reached: Callable[[str], None] = lambda _: None
) -> RegisteredModel:
    """Export a candidate, check the file, log its run and register it; the first of a name becomes champion.

    `reached` is told of the steps, as by `Registry.record`.
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
                {"train_loss": epoch.train_loss, candidate.loss: epoch.validation_loss} for epoch in candidate.history
            ],
            metrics=card.metrics,
            tags={**candidate.tags, **{name: f"{value:.6g}" for name, value in card.metrics.items()}},
            reached=reached,
        )
    say(f"registered {version.label}: {_served(version, registry)}")
    return RegisteredModel(version, candidate)


def _served(version: Version, registry: Registry) -> str:
    if CHAMPION in version.aliases:
        return "the champion"
    serving = champion(registry, version.name)
    return "no champion" if serving is None else f"the champion is still {serving.label}"
