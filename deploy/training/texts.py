"""Training on texts: from a corpus to a vocabulary, tokens, a fitted network, and a candidate for the registry."""

import logging
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from deploy.data import TextSource, digest
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
from model.artifacts.versions import Dataset, check_name
from model.card import ClassifierCard, NextTokenCard
from model.networks.text import Classifier, NextToken
from model.plots.training import plot_confusion, plot_history
from model.training.classification import (
    ClassificationReport,
    ClassifyConfig,
    PreparedTexts,
    classifier_card,
    evaluate,
    fit_classifier,
    partition,
    probabilities,
    text_inputs,
)
from model.training.loop import Epoch, FittedModel
from model.training.next_token import NextTokenConfig, PreparedTokens, fit_next_token, next_token_card, token_inputs
from pipeline.datasets.corpus import Corpus
from pipeline.datasets.measurements import stem_of
from pipeline.datasets.tables import read_text
from pipeline.windows.tokens import Vocabulary

logger = logging.getLogger(__name__)

MAX_LEN = 256
"""The longest max_len that is inferred, in tokens; the option may be longer."""
CHARACTERS = Vocabulary(tokeniser="char", lower=False, digits=False)
COVERED = 0.99
"""The share of texts that an inferred max_len leaves whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyJob:
    """A classifier to train."""

    name: str
    """The registered model's name."""
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    """How texts become tokens; its entries are found in the texts."""
    max_len: int | None = None
    """The longest text, in tokens; None: their 99th percentile, up to 256."""
    share: float = 0.1
    """The share of texts for validation, and again for the test."""
    config: ClassifyConfig = field(default_factory=ClassifyConfig)
    """The network and its training."""

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTokenJob:
    """A model that continues texts, to train."""

    name: str
    """The registered model's name."""
    vocabulary: Vocabulary = CHARACTERS
    """How a text becomes tokens; its entries are found in the text."""
    share: float = 0.1
    """The share of the text, at its end, for validation."""
    config: NextTokenConfig = field(default_factory=NextTokenConfig)
    """The network and its training."""

    def __post_init__(self) -> None:
        check_name(self.name)


def train_classifier(
    corpus: Corpus, job: ClassifyJob, registry: Registry, dataset: Dataset | None = None
) -> RegisteredModel:
    """Fit a classifier to labelled texts, evaluate it on held-out texts, and register it.

    Raises DataError for too few texts, ConfigError naming an impossible setting; RegistryError.
    """
    find_champion(registry, job.name)
    prepared = prepare_texts(corpus, job)
    params = _first_params(prepared.config, prepared.card) | {"labels": len(prepared.card.labels)}
    with training_run(registry, job.name, "validation_loss", params, dataset) as log:
        with training_progress(_format_loss, log) as on_step:
            fitted = fit_classifier(prepared, on_step)
        test = prepared.parts.test
        report = evaluate(probabilities(fitted.model, prepared.data, test), prepared.y[test])
        logger.info(f"on {len(test):,} held-out texts: {format_report(report)}, after {len(fitted.history)} epochs")
        return register(_classifier_candidate(fitted, prepared, report), registry, log)


def prepare_texts(corpus: Corpus, job: ClassifyJob) -> PreparedTexts:
    """What a classifier's training starts with: texts in parts, in tokens of the training part's vocabulary.

    Raises ValueError for too few texts.
    """
    labels = sorted(set(corpus.labels))
    classes = {label: number for number, label in enumerate(labels)}
    y = np.array([classes[label] for label in corpus.labels], np.int64)
    parts = partition(y, corpus.groups, job.share, job.config.seed)
    vocabulary = fitted_vocabulary(job, [corpus.texts[row] for row in parts.train])
    data, saved = vocabulary.encoder().batch(corpus.texts), msgspec.to_builtins(vocabulary)
    logger.info(
        f"{len(y):,} texts of {len(labels)} labels: {len(vocabulary):,} tokens, at most {vocabulary.max_len} a text"
    )
    card = classifier_card(labels, saved, len(vocabulary), job.config, job.name)
    return PreparedTexts(data, y, parts, card, job.config)


def fitted_vocabulary(job: ClassifyJob, texts: list[str]) -> Vocabulary:
    """The vocabulary of these texts, with a max_len that suits them."""
    vocabulary = job.vocabulary.fitted(texts)
    if job.max_len is None:
        longest = int(np.quantile([len(vocabulary.split(text)) for text in texts], COVERED, method="higher"))
        return msgspec.structs.replace(vocabulary, max_len=max(1, min(longest, MAX_LEN)))
    return msgspec.structs.replace(vocabulary, max_len=job.max_len)


def format_report(report: ClassificationReport) -> str:
    """A report as a line."""
    majority = f"always the most frequent label: {report.majority:.3f}"
    return f"accuracy {report.accuracy:.3f} ({majority}), MCC {report.mcc:.3f}, F1 {report.f1:.3f}"


def _format_loss(epoch: Epoch) -> str:
    return f"validation loss {epoch.validation_loss:.3f}"


def _classifier_candidate(
    fitted: FittedModel[Classifier, ClassifierCard], prepared: PreparedTexts, report: ClassificationReport
) -> Candidate:
    scores = {"accuracy": report.accuracy, "mcc": report.mcc, "f1": report.f1, "majority": report.majority}
    card = msgspec.structs.replace(fitted.card, metrics=fitted.card.metrics | scores)
    return Candidate(
        model=fitted.model,
        card=card,
        history=fitted.history,
        examples=text_inputs(prepared.data, prepared.parts.test[:EXAMPLES]),
        params={},
        tags={},
        worth=f"On {len(prepared.parts.test):,} held-out texts: {format_report(report)}.",
        picture="confusion.png",
        draw=lambda folder: plot_confusion(report.confusion, card.labels, folder / "confusion.png"),
    )


def train_next_token(
    text: str, job: NextTokenJob, registry: Registry, dataset: Dataset | None = None
) -> RegisteredModel:
    """Fit a model to a text, evaluate it on the text's end, and register it.

    Raises DataError for too short a text, ConfigError naming an impossible setting; RegistryError.
    """
    find_champion(registry, job.name)
    prepared = prepare_text(text, job)
    params = _first_params(prepared.config, prepared.card)
    with training_run(registry, job.name, "validation_nats", params, dataset) as log:
        with training_progress(_format_nats, log) as on_step:
            fitted = fit_next_token(prepared, on_step)
        candidate = _next_token_candidate(fitted, prepared)
        logger.info(f"best: {_format_nats(candidate.best())}, after {len(fitted.history)} epochs")
        return register(candidate, registry, log)


def prepare_text(text: str, job: NextTokenJob) -> PreparedTokens:
    """What the training of a model that continues texts starts with; the vocabulary is that of all but the text's end.

    Raises ValueError for too short a text.
    """
    cut = round(len(text) * (1 - job.share))
    vocabulary = job.vocabulary.fitted([text[:cut]])
    encoder = vocabulary.encoder()
    train, validation = (np.array(encoder.encode(part), np.int64) for part in (text[:cut], text[cut:]))
    logger.info(
        f"{len(train):,} tokens to train on, {len(validation):,} to validate on, {len(vocabulary)} different ones"
    )
    card = next_token_card(msgspec.to_builtins(vocabulary), len(vocabulary), job.config, job.name)
    return PreparedTokens(train, validation, card, job.config)


def _format_nats(epoch: Epoch) -> str:
    nats = epoch.validation_loss
    return f"{nats:.3f} nats a token ({nats / math.log(2):.3f} bits)"


def _next_token_candidate(fitted: FittedModel[NextToken, NextTokenCard], prepared: PreparedTokens) -> Candidate:
    nats = fitted.card.metrics["validation_nats"]
    metrics = fitted.card.metrics | {"bits": nats / math.log(2), "perplexity": math.exp(nats)}
    card = msgspec.structs.replace(fitted.card, metrics=metrics)
    length = max(1, min(len(prepared.validation) // EXAMPLES, prepared.config.steps))
    return Candidate(
        model=fitted.model,
        card=card,
        history=fitted.history,
        examples=token_inputs(prepared.validation, card, (EXAMPLES, length)),
        params={},
        tags={},
        worth=f"On the text's last {len(prepared.validation):,} tokens: {nats:.3f} nats a token.",
        picture="history.png",
        draw=lambda folder: plot_history(fitted.history, "nats a token", folder / "history.png"),
    )


def _first_params(config: ClassifyConfig | NextTokenConfig, card: ClassifierCard | NextTokenCard) -> dict[str, object]:
    """What is known of a training before it: the settings, and the vocabulary."""
    vocabulary = {name: value for name, value in card.vocabulary.items() if name != "entries"}
    return asdict(config) | vocabulary | {"task": card.task, "tokens": card.tokens}


def run_classifier_training(job: ClassifyJob, source: TextSource, tracking_uri: str) -> dict[str, object]:
    """`tidecast train --task classify`: a job on a file of labelled texts."""
    corpus = source.corpus()
    registered = train_classifier(corpus, job, Registry(tracking_uri), source.dataset(corpus))
    return registered.summary(labels=len(set(corpus.labels)))


def run_next_token_training(job: NextTokenJob, file: str, tracking_uri: str) -> dict[str, object]:
    """`tidecast train --task next-token`: a job on a text file."""
    text = read_text(file)
    dataset = Dataset(name=stem_of(file), kind="file", source={"file": Path(file).name}, digest=digest(text.encode()))
    return train_next_token(text, job, Registry(tracking_uri), dataset).summary()
