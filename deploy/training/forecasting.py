"""Training a forecaster: from a history to windows, a fitted network, and a candidate for the registry."""

import json
import logging
from dataclasses import asdict, fields, replace

import msgspec

from deploy.data import DataSource
from deploy.settings.serve import window_config
from deploy.training.jobs import TrainJob
from deploy.training.look_back import infer_specs
from deploy.training.registration import (
    EXAMPLES,
    Candidate,
    RegisteredModel,
    find_champion,
    register,
    training_progress,
)
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from model.card import Card, InputSpec, OutputSpec
from model.plots import plot_forecasts
from model.training import distributed
from model.training.forecasting import (
    FittedForecaster,
    PreparedWindows,
    fit_forecaster,
    prepare,
    window_inputs,
)
from model.training.loop import Epoch
from model.windows import WindowData
from pipeline.datasets.history import History, windows
from pipeline.windows.grid import WindowConfig
from tidecast.errors import DataError

logger = logging.getLogger(__name__)


def train(history: History, job: TrainJob, registry: Registry) -> RegisteredModel:
    """Fit a model to a history, log and register it, and make it champion if the name has none.

    Raises DataError for a history that is too short, ConfigError naming an impossible setting; RegistryError.
    """
    return train_after(find_champion(registry, job.name), history, job, registry)


def train_after(champion: Version | None, history: History, job: TrainJob, registry: Registry) -> RegisteredModel:
    """`train`, with the windows of this champion."""
    prepared = prepare_windows(history, job, champion)
    with training_progress(format_epoch) as on_step:
        fitted = fit_forecaster(prepared, on_step)
    if not distributed.is_rank_zero():
        raise SystemExit(0)  # rank zero registers what this process helped to train
    candidate = forecast_candidate(fitted, prepared.data, history, job)
    best, naive = format_epoch(candidate.best()), fitted.naive_mse
    logger.info(f"best: {best}, seasonal naive {naive:.3f}, after {len(fitted.history)} epochs")
    return register(candidate, registry)


def prepare_windows(history: History, job: TrainJob, champion: Version | None) -> PreparedWindows:
    """The windows and the card that a forecaster's training on a history starts with, like those of this champion.

    Raises ValueError for a history that is too short or an impossible setting, naming it.
    """
    job = inherit_windows(job, champion)
    if history.frame.is_empty():
        why = "; ".join(history.invalid.in_words()) or "the history is empty"
        raise DataError(f"there are no events to train on: {why}")
    inputs, outputs = infer_specs(history, job)
    step = f"{inputs.freq} each" if inputs.freq else "one an event"
    logger.info(f"{len(history.frame):,} events: {inputs.seq_len} steps back, {outputs.horizon} ahead, {step}")
    data = windows(history, window_config(inputs))
    logger.info(f"{data.counts.in_words()}: {len(data):,} windows")
    return prepare(data, inputs, outputs, job.config, job.name)


def inherit_windows(job: TrainJob, champion: Version | None) -> TrainJob:
    """The job, with the champion's windows wherever it leaves them to be inferred.

    So a service can switch to the new version at any time: another look-back or spacing would need other windows.
    """
    if champion is None or "input" not in champion.tags:
        return job
    inputs = msgspec.json.decode(champion.tags["input"], type=InputSpec)
    if inputs.features != job.features or job.freq not in (None, inputs.freq):
        return job
    logger.info(f"windows as those of {champion.label}")
    names = [each.name for each in fields(WindowConfig) if getattr(job, each.name) is None]
    horizon = job.horizon or msgspec.json.decode(champion.tags["output"], type=OutputSpec).horizon
    return replace(job, **{name: getattr(inputs, name) for name in names}, horizon=horizon)


def format_epoch(epoch: Epoch) -> str:
    """An epoch's validation error, for people."""
    return f"validation error {epoch.validation_loss:.3f}"


def forecast_candidate(fitted: FittedForecaster, data: WindowData, history: History, job: TrainJob) -> Candidate:
    """A fitted forecaster, ready to be registered."""
    card, rows = fitted.card, fitted.split.validation[-EXAMPLES:]
    ranges = {f"{name}_range": f"{low:g} to {high:g}" for name, (low, high) in card.ranges.items()}
    members = {"members": json.dumps(card.members)} if card.members else {}
    return Candidate(
        model=fitted.model,
        card=card,
        history=fitted.history,
        loss_name="validation_mse",
        examples=window_inputs(data, card, rows),
        params=asdict(job.config) | card.hyperparameters | _shape_params(card.input, card.output) | ranges | members,
        tags={
            "offsets": json.dumps(dict(history.offsets)),
            "trained_until": str(card.trained_until),
            "input": msgspec.json.encode(card.input).decode(),
            "output": msgspec.json.encode(card.output).decode(),
        },
        draw=lambda folder: plot_forecasts(fitted, data, folder / "forecasts.png"),
    )


def _shape_params(inputs: InputSpec, outputs: OutputSpec) -> dict[str, object]:
    return {
        "freq": inputs.freq,
        "seq_len": inputs.seq_len,
        "features": ",".join(inputs.features),
        "horizon": outputs.horizon,
        "targets": ",".join(outputs.targets),
    }


def run_forecaster_training(job: TrainJob, source: DataSource, tracking_uri: str) -> dict[str, object]:
    """`tidecast train`: a job on a topic's or a file's history."""
    history = source.history(job.freq)
    registered = train(history, job, Registry(tracking_uri))
    card = registered.candidate.card
    assert isinstance(card, Card)
    return registered.summary(
        freq=card.input.freq, seq_len=card.input.seq_len, horizon=card.output.horizon, notes=history.notes
    )
