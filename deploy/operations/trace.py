"""A real batch's shapes on their way through a model, on the screen."""

import logging
from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

from deploy.serving.model_loading import load_onnx
from deploy.settings.serve import DEFAULT_TRACKING, log_address, read_settings
from deploy.training.options import TrainOptions, prepared
from model.artifacts.export import CARD_FILE, EXAMPLE_FILE, WEIGHTS_FILE, example
from model.artifacts.registry import Registry
from model.card import AnyCard, ClassifierCard, NextTokenCard, read_card
from model.networks.forecast import build
from model.networks.text import build_classifier, build_next_token
from model.networks.trace import Trace, trace
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)

ROWS = 4
"""How many rows of the data a settings file's batch has."""


Batch = dict[str, Tensor]
"""A model's named inputs."""


@dataclass(frozen=True, slots=True)
class Settable:
    """What a settings file may name."""

    anywhere: Container[str]
    """The options of all commands."""
    in_train: Container[str]
    """Those of `train`."""


def show(target: str, tracking_uri: str | None, settable: Settable) -> dict[str, object]:
    """`tidecast trace`: print the table, and say what is in it; a settings file may name the store where none is given.

    Raises ConfigError, RegistryError.
    """
    if target.endswith(".toml"):
        model, card, batch = _from_settings(Path(target), tracking_uri, settable)
    else:
        model, card, batch = _from_model(target, tracking_uri or DEFAULT_TRACKING)
    found = trace(model, card, batch)
    Console(highlight=False).print(_table(card, found))
    logger.info(
        "the last real step of the LSTM's output equals its state h_n: " + ("yes" if found.last_is_state else "NO")
    )
    steps = [asdict(step) for step in found.steps]
    return {"task": card.task, "steps": steps, "last_is_state": found.last_is_state}


def _table(card: AnyCard, found: Trace) -> Table:
    table = Table(title=f"{card.name}: {card.task}, {card.arch}", title_justify="left")
    for heading in ("layer", "shape", "in letters"):
        table.add_column(heading, no_wrap=True)
    table.add_column("parameters", justify="right")
    for step in found.steps:
        weights = f"{step.parameters:,}" if step.parameters else ""
        table.add_row(step.layer, ", ".join(map(str, step.shape)), step.legend, weights)
    return table


def _from_model(target: str, tracking_uri: str) -> tuple[nn.Module, AnyCard, Batch]:
    """A registered model with its weights and rows it was checked with, or an ONNX file beside which these lie."""
    if target.endswith(".onnx"):
        path = Path(target)
        return _from_folder(path.parent) if (path.parent / WEIGHTS_FILE).is_file() else _from_file(path)
    registry = Registry(tracking_uri)
    with TemporaryDirectory() as folder:
        return _from_folder(registry.artifacts(registry.resolve(target), Path(folder)))


def _from_file(path: Path) -> tuple[nn.Module, AnyCard, Batch]:
    predictor = load_onnx(path, path.name, "cpu")
    logger.info("the file alone, without the weights and rows that its run keeps: fresh weights, on a made-up batch")
    return network(predictor.card), predictor.card, example(predictor.card)


def _from_folder(folder: Path) -> tuple[nn.Module, AnyCard, Batch]:
    card = read_card((folder / CARD_FILE).read_text())
    model = network(card)
    model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return model, card, load_file(folder / EXAMPLE_FILE)


def network(card: AnyCard) -> nn.Module:
    """The network that a card describes, with fresh weights. Raises ConfigError for a model that is not ours."""
    if isinstance(card, ClassifierCard):
        return build_classifier(card)
    if isinstance(card, NextTokenCard):
        return build_next_token(card)
    return build(card)


def _from_settings(path: Path, tracking_uri: str | None, settable: Settable) -> tuple[nn.Module, AnyCard, Batch]:
    """What `train` would begin with, by a settings file: its network, untrained, and the first rows of its data."""
    typed = {"name": path.stem, **read_settings(path, settable.anywhere)}
    given = {name.replace("-", "_"): value for name, value in typed.items() if name in settable.in_train}
    try:
        asked = TrainOptions.of(given if tracking_uri is None else given | {"tracking_uri": tracking_uri})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    begun = prepared(msgspec.structs.replace(asked, bootstrap=log_address(asked.bootstrap, path)))
    logger.info("untrained, on the first rows of the data")
    rows = {name: torch.from_numpy(array) for name, array in begun.first(ROWS).items()}
    return network(begun.card), begun.card, rows
