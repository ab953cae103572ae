"""Training a forecaster: from a history to windows, a fitted network, and a candidate for the registry."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields, replace

import msgspec

from deploy.console import digits
from deploy.data import DataSource
from deploy.settings.serve import window_config
from deploy.training.jobs import ALIGNED, TrainJob
from deploy.training.look_back import all_notes, infer_specs
from deploy.training.precision import lowering
from deploy.training.registration import (
    EXAMPLES,
    Candidate,
    RegisteredModel,
    find_champion,
    register,
    training_progress,
    training_run,
)
from model.artifacts.registry import Registry
from model.artifacts.versions import Dataset, Version
from model.card import Card, InputSpec, OutputSpec, Precision
from model.evaluation.metrics import MAX_WORST
from model.plots.forecasts import plot_forecasts
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
from tidecast.times import format_time

logger = logging.getLogger(__name__)

LOSS = "validation_mse"
"""The metric that validation losses are logged as."""


def train(history: History, job: TrainJob, registry: Registry, dataset: Dataset | None = None) -> RegisteredModel:
    """Fit a model to a history, log and register it, and make it champion if the name has none.

    `dataset` describes the history in the run. Raises DataError for a history that is too short, ConfigError naming an
    impossible setting; RegistryError.
    """
    return train_after(find_champion(registry, job.name), history, job, registry, dataset)


def train_after(
    champion: Version | None, history: History, job: TrainJob, registry: Registry, dataset: Dataset | None = None
) -> RegisteredModel:
    """`train`, with the windows of this champion."""
    prepared = prepare_windows(history, job, champion)
    if not distributed.is_rank_zero():
        fit_forecaster(prepared)
        raise SystemExit(0)  # rank zero registers what this process helped to train
    with training_run(registry, job.name, LOSS, first_params(prepared.card, job), dataset) as log:
        with training_progress(format_epoch, log) as on_step:
            fitted = fit_forecaster(prepared, on_step)
        logger.info(f"{errors_in_words(fitted.card)}, after {len(fitted.history)} epochs")
        say_odd_series(fitted)
        precision = precision_of(job, champion)
        return register(forecast_candidate(fitted, prepared.data, history, precision), registry, log)


def prepare_windows(history: History, job: TrainJob, champion: Version | None) -> PreparedWindows:
    """The windows and the card that a forecaster's training on a history starts with, like those of this champion.

    Raises ValueError for a history that is too short or an impossible setting, naming it.
    """
    job = inherit_windows(job, champion)
    if history.frame.is_empty():
        why = "; ".join(history.invalid.in_words()) or "the history is empty"
        raise DataError(f"there are no events to train on: {why}")
    inputs, outputs = infer_specs(history, job)
    logger.info(f"{len(history.frame):,} events: {inputs.seq_len} steps back, {outputs.horizon} ahead")
    logger.info(seasons_in_words(inputs, asked=job.season is not None))
    data = windows(history, window_config(inputs))
    logger.info(f"{data.counts.in_words()}: {len(data):,} windows")
    return prepare(data, inputs, outputs, job.config, job.name)


def seasons_in_words(inputs: InputSpec, *, asked: bool = False) -> str:
    """The seasons that the networks and the naive forecasts go by, and where they are from, as a line."""
    named = [f"{name} ({lag:,} steps)" for name, lag in inputs.lags.items() if name != "season"]
    if inputs.season is not None:
        found = f"season: {inputs.season:,} steps, {'as given' if asked else 'found in the data'}"
        return f"{found}; of the calendar: {', '.join(named)}" if named else found
    return f"seasons: {', '.join(named)}, of the calendar; none clearer in the data" if named else "no season was found"


def inherit_windows(job: TrainJob, champion: Version | None) -> TrainJob:
    """The job, with the champion's windows wherever it leaves them to be inferred.

    So a service can switch to the new version at any time: another look-back or spacing would need other windows.
    """
    if champion is None or "input" not in champion.tags:
        return job
    inputs = msgspec.json.decode(champion.tags["input"], type=InputSpec)
    aligned = inputs.offset or ALIGNED
    other = job.freq not in (None, inputs.freq) or job.offset not in (None, aligned)
    if inputs.features != job.features or other:
        return job
    logger.info(f"windows as those of {champion.label}")
    names = [each.name for each in fields(WindowConfig) if getattr(job, each.name) is None]
    season = job.season or inputs.season
    outputs = msgspec.json.decode(champion.tags["output"], type=OutputSpec)
    inherited = {name: getattr(inputs, name) for name in names} | {"offset": aligned}
    clipped = outputs.non_negative if job.non_negative is None else job.non_negative
    return replace(job, **inherited, horizon=job.horizon or outputs.horizon, season=season, non_negative=clipped)


def format_epoch(epoch: Epoch) -> str:
    """An epoch's validation error, for people."""
    return f"validation error {epoch.validation_loss:.3f}"


def errors_in_words(card: Card) -> str:
    """A forecaster's validation error next to the best naive forecast's, for people."""
    name, naive = card.best_naive
    return f"validation error {card.metrics['validation_mse']:.4g}, best naive forecast ({name}) {naive:.4g}"


def odd_series(fitted: FittedForecaster, worst: Mapping[str, float] | None = None) -> dict[str, object]:
    """Which series had spikes, and which make up most of the error, in validation or as given, as data."""
    return {"winsorised": dict(fitted.spikes), "most_of_the_error": dict(fitted.worst if worst is None else worst)}


def say_odd_series(fitted: FittedForecaster, worst: Mapping[str, float] | None = None) -> None:
    """`odd_series` as log lines."""
    if fitted.spikes:
        named = ", ".join(f"{count:,} in {name}" for name, count in list(fitted.spikes.items())[:MAX_WORST])
        total, more = sum(fitted.spikes.values()), ", .." if len(fitted.spikes) > MAX_WORST else ""
        one, several = (
            "value far from all others of its series counts",
            "values far from all others of their series count",
        )
        what = one if total == 1 else several
        logger.info(f"{total:,} {what} as the nearest of these: {named}{more}; --no-winsorise takes them as they are")
    if shares := fitted.worst if worst is None else worst:
        named = ", ".join(f"{name}: {share:.0%} of the squared error" for name, share in shares.items())
        logger.info(f"most of the error is of few series: {named}")


def gain_over_naive(card: Card) -> float:
    """By which fraction a forecaster's validation error is lower than the best naive forecast's."""
    naive = card.best_naive[1]
    return 1 - card.metrics["validation_mse"] / naive if naive else 0.0


def first_params(card: Card, job: TrainJob) -> dict[str, object]:
    """What is known of a training before it: the settings, and the shapes of its windows and forecasts."""
    return asdict(job.config) | card.hyperparameters | {"task": card.task} | _shape_params(card.input, card.output)


def precision_of(job: TrainJob, champion: Version | None) -> Precision:
    """The precision that is asked for, or else that of the champion."""
    inherited = "float32" if champion is None else champion.tags.get("precision", "float32")
    return job.precision or msgspec.convert(inherited, Precision)


def forecast_candidate(
    fitted: FittedForecaster, data: WindowData, history: History, precision: Precision = "float32"
) -> Candidate:
    """A fitted forecaster, ready to be registered in this precision."""
    card, rows = fitted.card, fitted.split.validation[-EXAMPLES:]
    ranges = {
        f"{name}_range": f"{low:.{digits([low, high])}g} to {high:.{digits([low, high])}g}"
        for name, (low, high) in card.ranges.items()
    }
    members = {"members": json.dumps(card.members)} if card.members else {}
    return Candidate(
        model=fitted.model,
        card=card,
        history=fitted.history,
        examples=window_inputs(data, card, rows),
        params={"trained_until": f"{format_time(card.trained_until)} UTC"} | ranges | members,
        tags={
            "offsets": json.dumps(dict(history.offsets)),
            "trained_until": str(card.trained_until),
            "input": msgspec.json.encode(card.input).decode(),
            "output": msgspec.json.encode(card.output).decode(),
            "precision": precision,
        },
        worth=worth_in_words(card, fitted.split.cuts.validation),
        picture="forecasts.png",
        draw=lambda folder: plot_forecasts(fitted, data, folder / "forecasts.png"),
        scores={"gain_over_naive": gain_over_naive(card)},
        facts=odd_series(fitted),
        lower=None if precision == "float32" else lowering(fitted, data, precision),
    )


def worth_in_words(card: Card, since: int) -> str:
    """What a forecaster is worth against the best naive forecast, on the validation data since a time; in Markdown."""
    error, (name, naive) = card.metrics["validation_mse"], card.best_naive
    what = "the last value" if name == "last" else f"the value a {name} before ({card.input.lags[name]} steps)"
    gain = gain_over_naive(card)
    verdict = f"{gain:.0%} lower" if gain > 0 else f"**{-gain:.0%} higher: the naive forecast is better**"
    steps = f"{card.output.horizon} steps{f' of {card.input.freq}' if card.input.freq else ''}"
    return (
        f"Forecasts {', '.join(card.output.targets)}, {steps} ahead. On the data since {format_time(since)} UTC its "
        f"mean squared error is **{error:.4g}**, in z-scores: 1 is the variance of a series in training. The best "
        f"naive forecast, {what}, has {naive:.4g}; the model's is {verdict}."
    )


def _shape_params(inputs: InputSpec, outputs: OutputSpec) -> dict[str, object]:
    return {
        "freq": inputs.freq,
        "offset": inputs.offset,
        "seq_len": inputs.seq_len,
        "features": ",".join(inputs.features),
        "horizon": outputs.horizon,
        "targets": ",".join(outputs.targets),
        "season": inputs.season,
    }


def run_forecaster_training(job: TrainJob, source: DataSource, tracking_uri: str) -> dict[str, object]:
    """`tidecast train`: a job on a topic's or a file's history."""
    history = source.history(job.freq)
    registered = train(history, job, Registry(tracking_uri), source.dataset(history))
    card = registered.candidate.card
    assert isinstance(card, Card)
    return registered.summary(
        precision=card.precision or "float32",
        freq=card.input.freq,
        offset=card.input.offset,
        seq_len=card.input.seq_len,
        horizon=card.output.horizon,
        season=card.input.season,
        notes=all_notes(history, card.input),
    )
