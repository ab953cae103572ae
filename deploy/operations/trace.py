"""`tidecast trace`: the shape of a real batch at every layer of a model, as a table."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import torch
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

from deploy.console import print_table
from deploy.models.loading import load_onnx
from deploy.settings.files import log_address
from deploy.settings.locations import default_tracking
from deploy.training.options import TrainOptions, prepare_training
from model.artifacts.export import CARD_FILE, EXAMPLE_FILE, WEIGHTS_FILE, example
from model.artifacts.registry import Registry
from model.card import AnyCard, ClassifierCard, NextTokenCard, read_card
from model.networks.forecast import build_network
from model.networks.text import build_classifier, build_next_token
from model.networks.trace import Trace, trace
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)

ROWS = 4
"""Batch size of the trace of a settings file."""

Batch = dict[str, Tensor]
"""A model's named input tensors."""


TrainSettings = Callable[[Path], Mapping[str, str]]
"""The settings of `train` in a file."""


def print_trace(target: str, tracking_uri: str | None, settings: TrainSettings) -> dict[str, object]:
    """`tidecast trace`: print the table; its rows. A settings file may contain the tracking URI if that is None.

    Raises ConfigError, RegistryError.
    """
    if target.endswith(".toml"):
        model, card, batch = _input_from_settings(Path(target), tracking_uri, settings)
    else:
        model, card, batch = _input_from_model(target, tracking_uri or default_tracking())
    traced = trace(model, card, batch)
    print_table(_table(card, traced))
    check = "the last real step of the LSTM's output equals its state h_n"
    level, verdict = (logging.INFO, "yes") if traced.last_is_state else (logging.WARNING, "NO")
    logger.log(level, f"{check}: {verdict}")
    steps = [asdict(step) for step in traced.steps]
    return {"task": card.task, "steps": steps, "last_is_state": traced.last_is_state}


def _table(card: AnyCard, traced: Trace) -> Table:
    table = Table(title=f"{card.name}: {card.task}, {card.arch}", title_justify="left")
    for heading in ("layer", "shape", "in symbols"):
        table.add_column(heading, no_wrap=True)
    table.add_column("parameters", justify="right")
    for step in traced.steps:
        weights = f"{step.parameters:,}" if step.parameters else ""
        table.add_row(step.layer, ", ".join(map(str, step.shape)), step.legend, weights)
    return table


def _input_from_model(target: str, tracking_uri: str) -> tuple[nn.Module, AnyCard, Batch]:
    """A registered model with its weights and example batch, or an ONNX file, with those if they are next to it."""
    if target.endswith(".onnx"):
        path = Path(target)
        return _input_from_folder(path.parent) if (path.parent / WEIGHTS_FILE).is_file() else _input_from_file(path)
    registry = Registry(tracking_uri)
    with TemporaryDirectory() as folder:
        return _input_from_folder(registry.artifacts(registry.resolve(target), Path(folder)))


def _input_from_file(path: Path) -> tuple[nn.Module, AnyCard, Batch]:
    predictor = load_onnx(path, path.name, "cpu")
    logger.info("the ONNX file only, without its run's weights and example batch: untrained weights on synthetic rows")
    return untrained_network(predictor.card), predictor.card, example(predictor.card)


def _input_from_folder(folder: Path) -> tuple[nn.Module, AnyCard, Batch]:
    card = read_card((folder / CARD_FILE).read_text())
    model = untrained_network(card)
    model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return model, card, load_file(folder / EXAMPLE_FILE)


def untrained_network(card: AnyCard) -> nn.Module:
    """The network that a card describes, with initial weights. Raises ConfigError for a foreign model."""
    if isinstance(card, ClassifierCard):
        return build_classifier(card)
    if isinstance(card, NextTokenCard):
        return build_next_token(card)
    return build_network(card)


def _input_from_settings(
    path: Path, tracking_uri: str | None, settings: TrainSettings
) -> tuple[nn.Module, AnyCard, Batch]:
    """What `train` would start with: its untrained network, and the first rows of its data."""
    train_settings = {"name": path.stem} | {name.replace("-", "_"): text for name, text in settings(path).items()}
    try:
        if tracking_uri is not None:
            train_settings["tracking_uri"] = tracking_uri
        options = TrainOptions.of(train_settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    prepared_run = prepare_training(msgspec.structs.replace(options, bootstrap=log_address(options.bootstrap, path)))
    logger.info("untrained, on the first rows of the data")
    rows = {name: torch.from_numpy(array) for name, array in prepared_run.first(ROWS).items()}
    return untrained_network(prepared_run.card), prepared_run.card, rows
