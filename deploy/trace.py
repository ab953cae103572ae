"""A real batch's shapes on their way through a model, on the screen."""

from collections.abc import Container
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

from deploy.config import log_address, read_settings, window_config
from deploy.console import say
from deploy.learn import Asked, classify_job, forecast_job, next_token_job, source_columns, text_file
from deploy.predictor import load
from deploy.texts import fitted_vocabulary
from deploy.training import read_history, shapes
from model.classify import classifier_card
from model.export import CARD_FILE, EXAMPLE_FILE, WEIGHTS_FILE, Examples, example
from model.forecasting import forecast_card
from model.lstm import build
from model.next_token import next_token_card
from model.registry import Registry
from model.spec import AnyCard, ClassifierCard, NextTokenCard, read_card
from model.tokens import build_classifier, build_next_token
from model.trace import Trace, trace
from pipeline.corpus import read_corpus
from pipeline.history import windows
from pipeline.tables import read_text
from tidecast.errors import ConfigError

ROWS = 4
"""How many rows of the data a settings file's batch has."""


def show(target: str, tracking_uri: str, known: Container[str]) -> dict[str, object]:
    """`tidecast trace`: print the table, and say what is in it; `known` are the names that a settings file may have.

    Raises ConfigError, RegistryError.
    """
    if target.endswith(".toml"):
        model, card, batch = _from_settings(Path(target), known)
    else:
        model, card, batch = _from_model(target, tracking_uri)
    found = trace(model, card, batch)
    Console(highlight=False).print(_table(card, found))
    say("the last real step of the LSTM's output equals its state h_n: " + ("yes" if found.last_is_state else "NO"))
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


def _from_model(target: str, tracking_uri: str) -> tuple[nn.Module, AnyCard, dict[str, Tensor]]:
    """A registered model with its weights and rows it was checked with, or an ONNX file beside which these lie."""
    if target.endswith(".onnx"):
        path = Path(target)
        return _from_folder(path.parent) if (path.parent / WEIGHTS_FILE).is_file() else _from_file(path)
    registry = Registry(tracking_uri)
    with TemporaryDirectory() as folder:
        return _from_folder(registry.artifacts(registry.resolve(target), Path(folder)))


def _from_file(path: Path) -> tuple[nn.Module, AnyCard, dict[str, Tensor]]:
    predictor = load(path, path.name, "cpu")
    say("the file alone, without the weights and rows that its run keeps: fresh weights, on a made-up batch")
    return network(predictor.card), predictor.card, example(predictor.card)


def _from_folder(folder: Path) -> tuple[nn.Module, AnyCard, dict[str, Tensor]]:
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


def _from_settings(path: Path, known: Container[str]) -> tuple[nn.Module, AnyCard, dict[str, Tensor]]:
    """What `train` would begin with, by a settings file: its network, untrained, and the first rows of its data."""
    typed = {"name": path.stem, **read_settings(path, known)}
    try:
        asked = Asked.of({name.replace("-", "_"): value for name, value in typed.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    asked = msgspec.structs.replace(asked, bootstrap=log_address(asked.bootstrap, path))
    card, rows = {"forecast": _windows, "classify": _texts, "next-token": _tokens}[asked.task](asked)
    say("untrained, on the first rows of the data")
    return network(card), card, {name: torch.from_numpy(array) for name, array in rows.items()}


def _windows(asked: Asked) -> tuple[AnyCard, Examples]:
    job = forecast_job(asked)
    history = read_history(asked.bootstrap, asked.topic, asked.data, source_columns(asked), asked.freq)
    inputs, outputs = shapes(history, job)
    data = windows(history, window_config(inputs))
    card = forecast_card(inputs, outputs, job.config, job.name, int(np.ptp(data.step)))
    rows: Examples = {"x": data.x(data.ends[:ROWS]), "step": data.step[data.ends[:ROWS]]}
    return card, {name: rows[name] for name in card.inputs}


def _texts(asked: Asked) -> tuple[AnyCard, Examples]:
    job, corpus = classify_job(asked), read_corpus(text_file(asked), asked.text_column, asked.label_column)
    words = fitted_vocabulary(job, corpus.texts)
    card = classifier_card(sorted(set(corpus.labels)), msgspec.to_builtins(words), len(words), job.config, job.name)
    return card, words.encoder().batch(corpus.texts[:ROWS])._asdict()


def _tokens(asked: Asked) -> tuple[AnyCard, Examples]:
    job, text = next_token_job(asked), read_text(text_file(asked))
    words = job.vocabulary.fitted([text])
    card = next_token_card(msgspec.to_builtins(words), len(words), job.config, job.name)
    x = np.array(words.encoder().encode(text)[: ROWS * job.config.steps], np.int64)
    length = max(1, len(x) // ROWS)
    state = np.zeros((job.config.layers, ROWS, job.config.hidden), np.float32)
    return card, {"x": np.resize(x, (ROWS, length)), "h": state, "c": state}
