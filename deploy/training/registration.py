"""Registering a fitted model of any task as a version."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from deploy.console import progress
from model.artifacts.export import Examples, save
from model.artifacts.registry import Registry
from model.artifacts.registry.runs import Point, Run
from model.artifacts.versions import CHAMPION, Dataset, Version
from model.card import AnyCard
from model.training.loop import Epoch, OnStep
from tidecast.errors import CorruptModel, NotPermitted, RegistryError, UnknownModel

logger = logging.getLogger(__name__)

LOGGED_EVERY_S, RETRIED_AFTER_S = 1.0, 30.0
EXAMPLES = 64
"""Rows that torch and onnxruntime are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A fitted model, and all that is logged about its training."""

    model: nn.Module
    card: AnyCard
    history: Sequence[Epoch]
    examples: Examples
    """Real rows as named inputs, to compare torch and onnxruntime on."""
    params: Mapping[str, object]
    """What the training found, besides the parameters that it began with."""
    tags: Mapping[str, str]
    worth: str
    """What the model is worth, as a sentence in Markdown."""
    picture: str
    """The plot that shows it."""
    draw: Callable[[Path], None]
    """Draws plots into a folder."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores that the card does not have."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What else its training found, for a command's summary."""
    lower: Callable[[Path], AnyCard] | None = None
    """Puts a file of lower precision in the place of a folder's, where it is good enough; the card of what is there."""

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
            **self.candidate.facts,
            "sha256": self.version.sha256,
            "run": self.version.run_id,
        }


def find_champion(registry: Registry, name: str) -> Version | None:
    """A name's champion, if it has one.

    Raises RegistryError, so that an unavailable registry fails a command before its training.
    """
    with suppress(UnknownModel, CorruptModel):
        return registry.resolve(name)
    return None


@contextmanager
def training_progress(format_epoch: Callable[[Epoch], str], log: "TrainingLog | None" = None) -> Iterator[OnStep]:
    """Shows a training's progress in percent, and its errors; logs its epochs, if there is a run to log them to."""
    with progress("train", 100, unit="%") as report:

        def on_step(done: int, total: int, history: Sequence[Epoch]) -> None:
            report(100 * done // max(total, 1), _latest(history, format_epoch))
            if log is not None:
                log.update(history)

        yield on_step


def _latest(history: Sequence[Epoch], format_epoch: Callable[[Epoch], str]) -> str:
    """How far a training is; networks of an ensemble are trained side by side, so of one the best epoch."""
    if not history:
        return ""
    if not history[0].member:
        return f"epoch {len(history)}: {format_epoch(history[-1])}"
    best = min(history, key=lambda epoch: epoch.validation_loss)
    return f"{len(history)} epochs of {len({epoch.member for epoch in history})} networks, best {format_epoch(best)}"


class TrainingLog:
    """A training's run, and the losses logged to it: each epoch's once, a curve for each network of an ensemble."""

    def __init__(self, run: Run, loss_name: str) -> None:
        self.run, self._loss_name = run, loss_name
        self._logged = Counter[str]()
        self._next = 0.0

    def update(self, history: Sequence[Epoch]) -> None:
        """Log what is new in the history, at most once a second; while the registry can't be reached, later."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOGGED_EVERY_S
        try:
            self.flush(history)
        except (RegistryError, NotPermitted) as error:
            self._next = time.monotonic() + RETRIED_AFTER_S
            logger.warning(f"training goes on, its run is not up to date: {error}")

    def flush(self, history: Sequence[Epoch]) -> int:
        """Log all that is new in the history; the last step logged. Raises RegistryUnavailable."""
        steps, points = Counter[str](), []
        for epoch in history:
            steps[epoch.member] += 1
            if (step := steps[epoch.member]) > self._logged[epoch.member]:
                curve = f"{epoch.member}/" if epoch.member else ""
                points.append(Point(f"{curve}train_loss", epoch.train_loss, step))
                points.append(Point(f"{curve}{self._loss_name}", epoch.validation_loss, step))
        if points:
            self.run.log_metrics(points)
        self._logged = steps
        return max(steps.values(), default=0)


@contextmanager
def training_run(
    registry: Registry,
    name: str,
    loss_name: str,
    params: Mapping[str, object],
    dataset: Dataset | None = None,
    job: str | None = None,
) -> Iterator[TrainingLog]:
    """The run of a training, begun before it; `loss_name` is the metric that validation losses are logged as.

    It says where the run's page is. Raises RegistryError.
    """
    with registry.run(name, job) as run:
        run.log_params(params)
        if dataset is not None:
            run.log_dataset(dataset)
        logger.info(f"run: {run.url}")
        yield TrainingLog(run, loss_name)


def register(
    candidate: Candidate, registry: Registry, log: TrainingLog, on_step: Callable[[str], None] = lambda _: None
) -> RegisteredModel:
    """Export a candidate, verify the file, log its scores as the last values of the run, and register it.

    The first version of a name becomes champion. `on_step` is called with the name of each step done, as by
    `Registry.register`.
    """
    run, last = log.run, log.flush(candidate.history) + 1
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(candidate.model, candidate.card, folder, candidate.examples)
        if candidate.lower is not None:
            candidate = replace(candidate, card=candidate.lower(folder))
        card = candidate.card
        candidate.draw(folder)
        run.log_params(candidate.params)
        scores = {**card.metrics, **candidate.scores}
        run.log_metrics([Point(name, value, last) for name, value in scores.items()])
        description = f"{candidate.worth}\n\n{run.picture(candidate.picture)}"
        run.describe(description, {})
        version = registry.register(
            card.name,
            run,
            folder,
            tags={**candidate.tags, **{name: f"{value:.6g}" for name, value in card.metrics.items()}},
            description=description,
            card=card,
            reached=on_step,
        )
    logger.info(f"registered {version.label}: {_champion_note(version, registry)}")
    return RegisteredModel(version, candidate)


def _champion_note(version: Version, registry: Registry) -> str:
    if CHAMPION in version.aliases:
        return "the champion"
    champion = find_champion(registry, version.name)
    return "no champion" if champion is None else f"the champion is still {champion.label}"
