"""`tidecast retrain`: a challenger, judged against the champion on what neither has seen, and promoted if it is better.

One shot, and the same again after it was killed anywhere: a version appears with its verdict, or not at all, and only
then moves an alias. What is learned from lies before what is judged on.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec
import numpy as np
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from deploy.console import say
from deploy.evaluation.comparison import Losses, losses
from deploy.serving.model_loading import load_onnx
from deploy.settings.serve import HOME, MODELS, window_config
from deploy.training.forecasting import TrainJob, candidate, in_words, like_before, read_history, shapes, train_after
from deploy.training.registration import Candidate, champion, register, watched
from model.artifacts.export import CARD_FILE, WEIGHTS_FILE
from model.artifacts.registry import CHALLENGER, JOB, PROMOTED, Registry
from model.artifacts.versions import CHAMPION, Version
from model.card import Card, InputSpec, read_card
from model.evaluation.promotion import PromotionDecision, decide, needed
from model.evaluation.splits import Cuts, last_share
from model.networks.forecast import build
from model.plots import plot_verdict
from model.training.forecasting import Warm, fit
from model.windows import Rows
from pipeline import failpoint
from pipeline.datasets.history import History, windows
from pipeline.datasets.measurements import Columns
from pipeline.windows.sliding import SlidingWindows
from tidecast.errors import ConfigError, PromotionConflict, RetrainingBusy
from tidecast.times import format_time as minute

JUDGED = 3
"""Where there is more, so many times as long a time is judged on as a verdict needs at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainJob:
    """What to retrain: a training, and what it begins with."""

    train: TrainJob
    """Windows and horizon are the champion's."""
    start: Literal["fresh", "warm"] = "fresh"
    """Whether networks begin with the champion's weights."""


def retrain(history: History, job: RetrainJob, registry: Registry) -> dict[str, object]:
    """Train a challenger, judge it, register it with its verdict, and promote it if that says so; what came of it.

    A name without a champion gets its first. Raises RetrainingBusy if another retraining of the name is at work here,
    DataError for a history that is too short, RegistryError.
    """
    with _alone(job.train.name):
        return _retrained(history, job, registry, champion(registry, job.train.name))


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """While this lasts no other retraining of the name is at work here. Raises RetrainingBusy."""
    path = HOME / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise RetrainingBusy(f"{name}: another retraining is at work; it holds {path}") from None
    with lock:
        yield


def learn(
    job: RetrainJob,
    topic: str | None,
    data: str | None,
    columns: Columns,
    span: tuple[int | None, int | None],
    bootstrap: str,
    tracking_uri: str,
) -> dict[str, object]:
    """`tidecast retrain`: on a topic's records written in a span of time, or a file's measurements of it.

    Who serves is asked once, before anything is read: the history has the features of that version, and the challenger
    is judged against it, whatever is promoted meanwhile.
    """
    registry = Registry(tracking_uri)
    with _alone(job.train.name):
        serving = champion(registry, job.train.name)
        if serving is not None and "input" in serving.tags:
            features = msgspec.json.decode(serving.tags["input"], type=InputSpec).features
            columns = replace(columns, features=features)
            job = replace(job, train=replace(job.train, features=features))
        history = read_history(bootstrap, topic, data, columns, job.train.freq, span)
        return _retrained(history, job, registry, serving)


def _retrained(history: History, job: RetrainJob, registry: Registry, serving: Version | None) -> dict[str, object]:
    return _first(history, job, registry) if serving is None else _challenged(history, job, registry, serving)


def _first(history: History, job: RetrainJob, registry: Registry) -> dict[str, object]:
    others = ", ".join(registry.names()) or "none"
    say(f"no model is called {job.train.name} yet, so this trains the first; there are: {others}")
    version = train_after(None, history, job.train, registry).version
    if CHAMPION in version.aliases:
        return _told(version, "first", "the first of its name", None)
    return _told(version, "overtaken", "another version is the champion", None)


def _challenged(history: History, job: RetrainJob, registry: Registry, serving: Version) -> dict[str, object]:
    fingerprint = _fingerprint(history, job)
    if made := registry.of_job(job.train.name, fingerprint):
        say(f"{made.label} was made of the same history already")
        return _settled(registry, made, made.tags["verdict"], made.tags["why"], None)
    predictor = load_onnx(registry.download(serving, MODELS), serving.label, "cpu")
    card = predictor.card
    if not isinstance(card, Card):
        raise ConfigError(f"{serving.label} is no forecaster: tidecast train makes its next version")
    plan = _like(job.train, card, serving)
    inputs, outputs = shapes(history, plan)
    data = windows(history, window_config(inputs))
    seen = max(card.trained_until, int(serving.tags.get("ancestry_until", 0)))
    cuts = _cuts(data, seen, outputs.horizon, plan)
    if cuts is None:
        fresh, enough = int((np.unique(data.ts) > seen).sum()), needed(outputs.horizon)
        why = f"{fresh:,} steps have come after what {serving.label} has seen, and a verdict takes {enough:,}"
        return _told(serving, "undecided", why, None)
    say(f"{len(data):,} windows; judged on what came from {minute(cuts.test)} UTC on")
    with watched(in_words) as on_step:
        warm = _warm(registry, serving) if job.start == "warm" else None
        fitted = fit(data, inputs, outputs, plan.config, plan.name, on_step, cuts, warm)
    origins, lost = losses(data, fitted, predictor, cuts)
    naive = {name: loss for name, loss in lost.items() if name.startswith("naive")}
    verdict = decide(lost["challenger"], lost["champion"], naive, outputs.horizon)
    ancestry = max(seen if warm else 0, fitted.card.trained_until)
    tags = {JOB: fingerprint, "ancestry_until": str(ancestry), "against": serving.label, **_in_tags(verdict)}
    title = f"{plan.name} against {serving.label}"
    result = _with_verdict(candidate(fitted, data, history, plan), tags, verdict, data.ts[origins], lost, title)
    version = register(result, registry, failpoint.reached).version
    return _settled(registry, version, verdict.decision, verdict.why, verdict)


def _with_verdict(
    made: Candidate, tags: Mapping[str, str], verdict: PromotionDecision, ts: Rows, lost: Losses, title: str
) -> Candidate:
    """The candidate with the verdict in its tags, as JSON and as a picture."""

    def draw(folder: Path) -> None:
        made.draw(folder)
        plot_verdict(verdict, ts, lost, title, folder / "verdict.png")
        (folder / "verdict.json").write_bytes(msgspec.json.format(msgspec.json.encode(asdict(verdict)), indent=2))

    return replace(made, tags={**made.tags, **tags}, draw=draw)


def _in_tags(verdict: PromotionDecision) -> dict[str, str]:
    numbers = {name: f"{value:.6g}" for name, value in asdict(verdict).items() if isinstance(value, float)}
    return {"verdict": verdict.decision, "why": verdict.why, **numbers}


def _settled(
    registry: Registry, made: Version, decision: str, why: str, verdict: PromotionDecision | None
) -> dict[str, object]:
    """Move the aliases that a verdict moves; not twice, as somebody may have moved them back."""
    if PROMOTED in made.tags:
        return _told(made, "promoted before", why, verdict)
    registry.call(made, CHALLENGER)
    failpoint.reached("challenger")
    if decision == "promote":
        try:
            registry.promote(made, instead_of=made.tags["against"].rpartition("/")[2])
        except PromotionConflict as error:
            decision, why = "overtaken", str(error)
    return _told(made, decision, why, verdict)


def _told(version: Version, decision: str, why: str, verdict: PromotionDecision | None) -> dict[str, object]:
    words = {"promote": "is the champion now", "first": "is the champion", "undecided": "nothing decided"}
    say(f"{version.label}: {words.get(decision, 'is not promoted')}: {why}")
    numbers = (
        {}
        if verdict is None
        else {name: each for name, each in asdict(verdict).items() if name not in ("why", "decision")}
    )
    return {"model": version.label, "decision": decision, "why": why, **numbers}


def _fingerprint(history: History, job: RetrainJob) -> str:
    """The same history and settings make the same job."""
    rows = int(history.frame.hash_rows(seed=0).sum() or 0)
    facts = [sorted(history.offsets.items()), rows, asdict(job)]
    return sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()[:32]


def _like(job: TrainJob, card: Card, serving: Version) -> TrainJob:
    """The job, with all that has to stay the same for the champion to be replaced by what it makes."""
    if job.horizon not in (None, card.output.horizon):
        raise ConfigError(f"horizon: {serving.label} forecasts {card.output.horizon} steps; another is another name's")
    same = replace(job, features=card.input.features, targets=card.output.targets, horizon=card.output.horizon)
    tags = {"input": _text(card.input), "output": _text(card.output)}
    return like_before(replace(same, non_negative=card.output.non_negative), replace(serving, tags=tags))


def _text(spec: msgspec.Struct) -> str:
    return msgspec.json.encode(spec).decode()


def _cuts(data: SlidingWindows, seen: int, horizon: int, job: TrainJob) -> Cuts | None:
    """Judged on is the newest that nobody has seen; None where that is too little to decide by."""
    times = np.unique(data.ts)
    unseen = times[times > seen]
    if len(unseen) < needed(horizon):
        return None
    test = int(unseen[-min(len(unseen), JUDGED * needed(horizon))])
    return last_share(data, job.config.validation, horizon, test)


def _warm(registry: Registry, serving: Version) -> Warm:
    with TemporaryDirectory() as temporary:
        folder = registry.artifacts(serving, Path(temporary))
        card = read_card((folder / CARD_FILE).read_text())
        assert isinstance(card, Card)
        model = build(card)
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return Warm(model, card)
