"""What `tidecast check` finds of a service's models: whether they can be had, would be taken, and fit each other."""

from collections.abc import Iterator
from dataclasses import dataclass

from deploy.models.admission import Admission
from deploy.models.loading import load_model
from deploy.models.predictor import Predictor
from deploy.operations.findings import Finding
from deploy.serving.connections import Connections
from deploy.serving.tasks import Task, task_for
from deploy.settings.serve import ServeConfig, window_config
from model.card import Card
from pipeline.windows.grid import WindowConfig
from pipeline.windows.steps import Grid
from tidecast.errors import RegistryUnavailable, TidecastError


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """A model that can be served, its task, and its windows if it is a forecasting model."""

    predictor: Predictor
    task: Task
    windows: WindowConfig | None

    @property
    def grid(self) -> Grid | None:
        """The grid of its windows."""
        return None if self.windows is None else self.windows.grid


def check_models(config: ServeConfig, connections: Connections) -> tuple[CheckedModel | None, list[Finding]]:
    """The model that would serve, None if it can't, and what is found of it and of its shadow.

    Raises RegistryUnavailable.
    """
    try:
        predictor = load_model(connections.model, connections.tracking_uri, connections.device)
        task, card = task_for(predictor, config), predictor.card
    except RegistryUnavailable:
        raise
    except TidecastError as error:
        return None, [Finding("model", "wrong", str(error))]
    windows = window_config(card.input, config.lateness) if isinstance(card, Card) else None
    admission = Admission(connections.tracking_uri, connections.device, config.group)
    if reason := admission.foreseen_refusal(predictor):
        todo = "serve goes on with the last good version of an alias; promote another one"
        found = [Finding("model", "wrong", f"{predictor.label} is rejected: {reason}", todo)]
    else:
        found = [Finding("model", "ok", f"{predictor.label} on {predictor.device}: {predictor.device_reason}")]
    if connections.shadow:
        found += _shadow(connections.shadow, predictor, admission, connections)
    return CheckedModel(predictor, task, windows), found


def _shadow(reference: str, serving: Predictor, admission: Admission, connections: Connections) -> Iterator[Finding]:
    try:
        shadow = load_model(reference, connections.tracking_uri, connections.device)
    except RegistryUnavailable:
        raise
    except TidecastError as error:
        reason = str(error)
    else:
        refusal = admission.foreseen_refusal(shadow, serving.card)
        reason = f"{shadow.label} is rejected: {refusal}" if refusal else ""
    if reason:
        yield Finding("shadow", "warning", reason, "serve goes on without a shadow until the alias is another version")
    else:
        yield Finding("shadow", "ok", f"{shadow.label} takes the same windows")
