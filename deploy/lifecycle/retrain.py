"""`tidecast retrain`: a challenger, compared with the champion on data new to both, and promoted if better.

One shot, and idempotent after it was killed at any point: a version is registered with its promotion decision, or not
at all, and only then an alias moves. All training data is older than the data that the comparison is on.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from deploy.data import DataSource
from deploy.evaluation.comparison import Losses, comparison_losses
from deploy.lifecycle.decisions import apply_decision, decision_tags, summary
from deploy.lifecycle.drift import Drift, DriftCheck, missing_steps, trained_until
from deploy.lifecycle.periods import Periods, divide, needed_steps, unseen_steps
from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.settings.locations import check_home, home, models
from deploy.settings.serve import window_config
from deploy.training.forecasting import (
    LOSS,
    first_params,
    forecast_candidate,
    format_epoch,
    inherit_windows,
    precision_of,
    train_after,
)
from deploy.training.jobs import TrainJob
from deploy.training.look_back import infer_specs, with_season
from deploy.training.registration import (
    Candidate,
    TrainingLog,
    find_champion,
    register,
    training_progress,
    training_run,
)
from model.artifacts.export import CARD_FILE, WEIGHTS_FILE
from model.artifacts.registry import JOB, Registry
from model.artifacts.versions import CHAMPION, Dataset, Version
from model.card import Card, InputSpec, Setting, read_card
from model.evaluation.promotion import PromotionDecision, decide
from model.networks.forecast import build_network
from model.plots.comparisons import plot_promotion
from model.training.forecasting import FittedForecaster, PreparedWindows, Warm, fit_forecaster, prepare
from model.windows import Rows
from pipeline import failpoint
from pipeline.datasets.history import History, windows
from pipeline.windows.sliding import SlidingWindows
from tidecast.errors import ConfigError, RetrainingBusy, TooShort
from tidecast.times import format_time

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainJob:
    """A model to retrain."""

    train: TrainJob
    """The training; windows and horizon are the champion's."""
    start: Literal["fresh", "warm"] = "fresh"
    """warm: networks are initialised with the champion's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """A challenger compared with the champion."""

    fitted: FittedForecaster
    data: SlidingWindows
    origins: Rows
    losses: Losses
    decision: PromotionDecision


def retrain(history: History, job: RetrainJob, registry: Registry, dataset: Dataset | None = None) -> dict[str, object]:
    """Train a challenger, compare it with the champion, register it, and promote it if it is better; a summary.

    The first version of a name becomes its champion. Raises RetrainingBusy if another retraining of the name is running
    here, DataError for a history that is too short, RegistryError.
    """
    with _lock(job.train.name):
        return _retrain(history, job, registry, find_champion(registry, job.train.name), dataset)


def run_retraining(
    job: RetrainJob, source: DataSource, tracking_uri: str, check: DriftCheck | None = None, *, first_only: bool = False
) -> dict[str, object]:
    """`tidecast retrain`: on a topic's or a file's history; with a check only if there is a drift, on what came after.

    The champion is resolved once, before anything is read: the history has the features of that version, and the
    challenger is compared with it, whatever is promoted meanwhile. With a check there must be one: UnknownModel. With
    `first_only` there is nothing to do if there is one.
    """
    registry = Registry(tracking_uri)
    with _lock(job.train.name):
        name = job.train.name
        champion = find_champion(registry, name) if check is None else registry.resolve(name)
        if champion is not None and first_only:
            return summary(champion, "not the first", "nothing to do", None)
        if champion is not None and "input" in champion.tags:
            inputs = msgspec.json.decode(champion.tags["input"], type=InputSpec)
            source = source.with_features(inputs.features, aggregated=inputs.aggregate is not None)
            job = replace(job, train=replace(job.train, features=inputs.features))
        if check is not None and champion is not None:
            return _retrain_on_drift(check, job, source, registry, champion)
        history = source.history(job.train.freq)
        found = _retrain(history, job, registry, champion, source.dataset(history))
        return {**found, "notes": history.notes}


def _retrain_on_drift(
    check: DriftCheck, job: RetrainJob, source: DataSource, registry: Registry, champion: Version
) -> dict[str, object]:
    """Retrain on what came after a change, if there is one, it is not too soon, and there is enough of it."""
    if not (alerted := check.alerted(champion)):
        why = f"none is open since the champion's last training data ({format_time(trained_until(champion))} UTC)"
        return summary(champion, "no drift", f"{why}: nothing to do", None)
    if why := check.too_soon(registry, champion):
        return summary(champion, "too soon", f"{len(alerted):,} series drift; {why}", None)
    history = source.history(job.train.freq)
    drift = Drift.of(alerted, history, champion)
    facts: dict[str, object] = {"drift": drift.facts(), "notes": history.notes}
    if drift.share < check.share:
        why = f"nothing to do: {drift.in_words()}, fewer than {check.share:.3g} (--drift-share)"
        return summary(champion, "no drift", why, None) | facts
    logger.info(f"{drift.in_words()}: what came before is not learned from")
    after = drift.after(history)
    if missing := missing_steps(after, champion):
        why = f"{drift.in_words()}; of what came after, {missing:,} steps are missing"
        return summary(champion, "undecided", why, None) | {"missing": missing} | facts
    try:
        return _retrain(after, job, registry, champion, source.dataset(after)) | facts
    except TooShort as error:
        why = f"{drift.in_words()}; what came after is not enough: {error}"
        return summary(champion, "undecided", why, None) | facts


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """Keeps out other retrainings of the name on this machine. Raises RetrainingBusy, NotPermitted."""
    check_home()
    path = home() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise RetrainingBusy(f"{name}: another retraining is running; it holds {path}") from None
    with lock:
        yield


def _retrain(
    history: History, job: RetrainJob, registry: Registry, champion: Version | None, dataset: Dataset | None
) -> dict[str, object]:
    if champion is None:
        return _train_first(history, job, registry, dataset)
    fingerprint = _fingerprint(history, job)
    if registered := registry.version_of_job(job.train.name, fingerprint):
        logger.info(f"{registered.label} was trained on the same history already")
        return apply_decision(registry, registered, registered.tags["verdict"], registered.tags["why"], None)
    return _challenge(history, job, registry, champion, fingerprint, dataset)


def _train_first(history: History, job: RetrainJob, registry: Registry, dataset: Dataset | None) -> dict[str, object]:
    others = ", ".join(registry.names()) or "none"
    logger.info(f"no model is called {job.train.name} yet, so this trains the first; there are: {others}")
    version = train_after(None, history, job.train, registry, dataset).version
    if CHAMPION in version.aliases:
        return summary(version, "first", "the first of its name", None)
    return summary(version, "overtaken", "another version is the champion", None)


def _challenge(
    history: History, job: RetrainJob, registry: Registry, champion: Version, fingerprint: str, dataset: Dataset | None
) -> dict[str, object]:
    predictor = load_onnx(registry.download(champion, models()), champion.label, "cpu")
    if not isinstance(predictor.card, Card):
        raise ConfigError(f"{champion.label} is not a forecaster: tidecast train makes its next version")
    plan = _match_champion(job.train, predictor.card, champion)
    inputs, outputs = infer_specs(history, plan)
    data = windows(history, window_config(inputs))
    seen = max(predictor.card.trained_until, int(champion.tags.get("ancestry_until", 0)))
    periods = divide(data, seen, outputs.horizon, plan.config.validation)
    if periods is None:
        return _too_little(data, seen, outputs.horizon, champion)
    logger.info(periods.in_words(champion.label))
    inputs = with_season(inputs, data, plan, periods.cuts.validation)  # of the whole history it may be the test part's
    warm = _warm_start(registry, champion) if job.start == "warm" else None
    prepared = prepare(data, inputs, outputs, plan.config, plan.name, periods.cuts)
    with training_run(registry, plan.name, LOSS, first_params(prepared.card, plan), dataset, fingerprint) as log:
        comparison = _compare(data, prepared, predictor, warm, log)
        ancestry = max(seen if warm else 0, comparison.fitted.card.trained_until)
        tags = {JOB: fingerprint, "ancestry_until": str(ancestry), "against": champion.label}
        candidate = forecast_candidate(comparison.fitted, data, history, precision_of(plan, champion))
        candidate = _with_decision(candidate, comparison, tags, f"{plan.name} against {champion.label}", periods)
        version = register(candidate, registry, log, failpoint.reached).version
    decision = comparison.decision
    found = apply_decision(registry, version, decision.decision, decision.why, decision)
    return found | {"learned": {**periods.learned, "new_steps": periods.new}, "judged": periods.judged}


def _too_little(data: SlidingWindows, seen: int, horizon: int, champion: Version) -> dict[str, object]:
    unseen, needed = unseen_steps(data, seen), needed_steps(horizon)
    why = (
        f"{unseen:,} steps are newer than the training data of {champion.label}, {needed - unseen:,} are missing: "
        f"{horizon:,} to learn from, and {needed - horizon:,} to judge on"
    )
    return summary(champion, "undecided", why, None) | {"missing": needed - unseen}


def _compare(
    data: SlidingWindows, prepared: PreparedWindows, predictor: Predictor, warm: Warm | None, log: TrainingLog
) -> _Comparison:
    """Train a challenger and compare it with the champion's predictor on the test part.

    A naive forecast that is better than the challenger takes its place, as a model.
    """
    with training_progress(format_epoch, log) as on_step:
        fitted = fit_forecaster(prepared, on_step, warm)
    inputs = prepared.card.input
    origins, losses = comparison_losses(data, fitted, predictor, prepared.split.cuts)
    naive = {name: loss for name, loss in losses.items() if name.startswith("naive")}
    lags = {f"naive ({name})": lag for name, lag in {"last": 1, **inputs.lags}.items() if lag < inputs.seq_len - 1}
    servable = [name for name in naive if name in lags]
    decision = decide(losses["challenger"], losses["champion"], naive, prepared.card.output.horizon, servable)
    if decision.contender in lags and decision.decision == "promote":
        logger.warning(f"{decision.contender} is better than what was trained, and takes its place")
        fitted = fit_forecaster(_naively(prepared, lags[decision.contender]))
    return _Comparison(fitted=fitted, data=data, origins=origins, losses=losses, decision=decision)


def _naively(prepared: PreparedWindows, lag: int) -> PreparedWindows:
    """The same windows, for the naive forecast of a lag instead of networks to train."""
    settings: dict[str, Setting] = {"location": "season", "lag": lag} if lag > 1 else {"location": "last"}
    inputs = msgspec.structs.replace(prepared.card.input, inputs=("x",))
    card = msgspec.structs.replace(prepared.card, arch="naive", hyperparameters=settings, members=(), input=inputs)
    return replace(prepared, card=card)


def _with_decision(
    candidate: Candidate, comparison: _Comparison, tags: Mapping[str, str], title: str, periods: Periods
) -> Candidate:
    """The candidate with the promotion decision in its tags, scores and description, as JSON and as a plot."""
    decision = comparison.decision
    numbers = {name: value for name, value in asdict(decision).items() if isinstance(value, float)}

    def draw(folder: Path) -> None:
        candidate.draw(folder)
        ts = comparison.data.ts[comparison.origins]
        plot_promotion(decision, ts, comparison.losses, title, folder / "verdict.png")
        (folder / "verdict.json").write_bytes(msgspec.json.format(msgspec.json.encode(asdict(decision)), indent=2))

    learned, judged = (json.dumps(each) for each in (periods.learned, periods.judged))
    return replace(
        candidate,
        tags={**candidate.tags, **tags, "learned": learned, "judged": judged, **decision_tags(decision)},
        scores={**candidate.scores, **{f"comparison/{name}": each for name, each in numbers.items()}},
        worth=f"{candidate.worth}\n\n{title}: **{decision.decision}**. {decision.why}.",
        draw=draw,
    )


def _fingerprint(history: History, job: RetrainJob) -> str:
    """The same for the same history and settings."""
    rows = int(history.frame.hash_rows(seed=0).sum() or 0)
    facts = [sorted(history.offsets.items()), rows, asdict(job)]
    return sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()[:32]


def _match_champion(job: TrainJob, card: Card, champion: Version) -> TrainJob:
    """The job, with all that must be the champion's for the new version to replace it. Raises ConfigError."""
    if job.horizon not in (None, card.output.horizon):
        horizon = card.output.horizon
        raise ConfigError(f"horizon: {champion.label} forecasts {horizon} steps; another horizon needs another name")
    same = replace(job, features=card.input.features, targets=card.output.targets, horizon=card.output.horizon)
    tags = {"input": _json(card.input), "output": _json(card.output)}
    return inherit_windows(replace(same, non_negative=card.output.non_negative), replace(champion, tags=tags))


def _json(spec: msgspec.Struct) -> str:
    return msgspec.json.encode(spec).decode()


def _warm_start(registry: Registry, champion: Version) -> Warm:
    with TemporaryDirectory() as temporary:
        folder = registry.artifacts(champion, Path(temporary))
        card = read_card((folder / CARD_FILE).read_text())
        assert isinstance(card, Card)
        model = build_network(card)
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return Warm(model, card)
