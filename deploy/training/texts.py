"""Training on texts: corpus -> vocabulary -> tokens -> fit -> a candidate for the registry."""

import math
from dataclasses import asdict, dataclass, field

import msgspec
import numpy as np

from deploy.console import say
from deploy.training.registration import EXAMPLES, Candidate, RegisteredModel, champion, register, watched
from model.artifacts.registry import Registry
from model.artifacts.versions import check_name
from model.card import ClassifierCard, NextTokenCard
from model.networks.text import Classifier, NextToken
from model.plots import plot_confusion, plot_history
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
from pipeline.datasets.corpus import Corpus, read_corpus
from pipeline.datasets.tables import read_text
from pipeline.windows.tokens import Vocabulary

MAX_LEN = 256
"""The longest text taken by itself, in tokens; longer ones can be asked for."""
CHARACTERS = Vocabulary(tokeniser="char", lower=False, digits=False)
COVERED = 0.99
"""The share of texts that the longest one taken by itself leaves whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyJob:
    """Which classifier to train."""

    name: str
    """The registered model's name."""
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    """How texts become tokens; its entries are found from the texts."""
    max_len: int | None = None
    """The longest text, in tokens; None: what 99 % of the texts have, up to 256."""
    share: float = 0.1
    """The share of texts that validates, and again that the scores come from."""
    config: ClassifyConfig = field(default_factory=ClassifyConfig)
    """The network and its training."""

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTokenJob:
    """Which model that continues texts to train."""

    name: str
    """The registered model's name."""
    vocabulary: Vocabulary = CHARACTERS
    """How a text becomes tokens; its entries are found from the text."""
    share: float = 0.1
    """The share of the text, at its end, that validates."""
    config: NextTokenConfig = field(default_factory=NextTokenConfig)
    """The network and its training."""

    def __post_init__(self) -> None:
        check_name(self.name)


def train_classifier(corpus: Corpus, job: ClassifyJob, registry: Registry) -> RegisteredModel:
    """Fit a classifier to labelled texts, judge it on texts it has not seen, and register it.

    Raises DataError for too few texts, ConfigError naming an impossible setting; RegistryError.
    """
    champion(registry, job.name)
    prepared = prepare_texts(corpus, job)
    with watched(_in_words) as on_step:
        fitted = fit_classifier(prepared, on_step)
    test = prepared.parts.test
    report = evaluate(probabilities(fitted.model, prepared.data, test), prepared.y[test])
    say(f"on {len(test):,} texts not seen: {in_words(report)}, after {len(fitted.history)} epochs")
    return register(_classifier(fitted, prepared, report), registry)


def prepare_texts(corpus: Corpus, job: ClassifyJob) -> PreparedTexts:
    """What a classifier's training begins with: texts in parts, in the tokens of a vocabulary of those trained on.

    Raises ValueError for too few texts.
    """
    labels = sorted(set(corpus.labels))
    numbers = {label: number for number, label in enumerate(labels)}
    y = np.array([numbers[label] for label in corpus.labels], np.int64)
    parts = partition(y, corpus.groups, job.share, job.config.seed)
    vocabulary = fitted_vocabulary(job, [corpus.texts[row] for row in parts.train])
    data, written = vocabulary.encoder().batch(corpus.texts), msgspec.to_builtins(vocabulary)
    say(f"{len(y):,} texts of {len(labels)} labels: {len(vocabulary):,} tokens, at most {vocabulary.max_len} a text")
    card = classifier_card(labels, written, len(vocabulary), job.config, job.name)
    return PreparedTexts(data, y, parts, card, job.config)


def fitted_vocabulary(job: ClassifyJob, texts: list[str]) -> Vocabulary:
    """The vocabulary of these texts, with a longest text that suits them."""
    vocabulary = job.vocabulary.fitted(texts)
    if job.max_len is None:
        longest = int(np.quantile([len(vocabulary.split(text)) for text in texts], COVERED, method="higher"))
        return msgspec.structs.replace(vocabulary, max_len=max(1, min(longest, MAX_LEN)))
    return msgspec.structs.replace(vocabulary, max_len=job.max_len)


def in_words(report: ClassificationReport) -> str:
    """A report as a line."""
    always = f"always the most frequent label: {report.majority:.3f}"
    return f"accuracy {report.accuracy:.3f} ({always}), MCC {report.mcc:.3f}, F1 {report.f1:.3f}"


def _in_words(epoch: Epoch) -> str:
    return f"validation loss {epoch.validation_loss:.3f}"


def _classifier(
    fitted: FittedModel[Classifier, ClassifierCard], prepared: PreparedTexts, report: ClassificationReport
) -> Candidate:
    scores = {"accuracy": report.accuracy, "mcc": report.mcc, "f1": report.f1, "majority": report.majority}
    card = msgspec.structs.replace(fitted.card, metrics=fitted.card.metrics | scores)
    return Candidate(
        model=fitted.model,
        card=card,
        history=fitted.history,
        loss="validation_loss",
        examples=text_inputs(prepared.data, prepared.parts.test[:EXAMPLES]),
        params=asdict(prepared.config) | _in_params(card) | {"labels": len(card.labels)},
        tags={},
        draw=lambda folder: plot_confusion(report.confusion, card.labels, folder / "confusion.png"),
    )


def train_next_token(text: str, job: NextTokenJob, registry: Registry) -> RegisteredModel:
    """Fit a model to a text, judge it on the text's end, and register it.

    Raises DataError for too short a text, ConfigError naming an impossible setting; RegistryError.
    """
    champion(registry, job.name)
    prepared = prepare_text(text, job)
    with watched(_in_nats) as on_step:
        fitted = fit_next_token(prepared, on_step)
    candidate = _next_token(fitted, prepared)
    say(f"best: {_in_nats(candidate.best())}, after {len(fitted.history)} epochs")
    return register(candidate, registry)


def prepare_text(text: str, job: NextTokenJob) -> PreparedTokens:
    """What the training of a model that continues texts begins with: all but the text's end makes the vocabulary.

    Raises ValueError for too short a text.
    """
    cut = round(len(text) * (1 - job.share))
    vocabulary = job.vocabulary.fitted([text[:cut]])
    encoder = vocabulary.encoder()
    train, validation = (np.array(encoder.encode(part), np.int64) for part in (text[:cut], text[cut:]))
    say(f"{len(train):,} tokens to learn from, {len(validation):,} to judge by, {len(vocabulary)} different ones")
    card = next_token_card(msgspec.to_builtins(vocabulary), len(vocabulary), job.config, job.name)
    return PreparedTokens(train, validation, card, job.config)


def _in_nats(epoch: Epoch) -> str:
    nats = epoch.validation_loss
    return f"{nats:.3f} nats a token ({nats / math.log(2):.3f} bits)"


def _next_token(fitted: FittedModel[NextToken, NextTokenCard], prepared: PreparedTokens) -> Candidate:
    nats = fitted.card.metrics["validation_nats"]
    metrics = fitted.card.metrics | {"bits": nats / math.log(2), "perplexity": math.exp(nats)}
    card = msgspec.structs.replace(fitted.card, metrics=metrics)
    length = max(1, min(len(prepared.validation) // EXAMPLES, prepared.config.steps))
    return Candidate(
        model=fitted.model,
        card=card,
        history=fitted.history,
        loss="validation_nats",
        examples=token_inputs(prepared.validation, card, (EXAMPLES, length)),
        params=asdict(prepared.config) | _in_params(card),
        tags={},
        draw=lambda folder: plot_history(fitted.history, "nats a token", folder / "history.png"),
    )


def _in_params(card: ClassifierCard | NextTokenCard) -> dict[str, object]:
    return {name: value for name, value in card.vocabulary.items() if name != "entries"} | {"tokens": card.tokens}


def learn_labels(
    job: ClassifyJob, path: str, columns: tuple[str | None, str | None, str | None], tracking_uri: str
) -> dict[str, object]:
    """`tidecast train --task classify`: a job on a file; `columns` are those of text, label and group."""
    corpus = labelled_texts(path, columns)
    trained = train_classifier(corpus, job, Registry(tracking_uri))
    return trained.summary(labels=len(set(corpus.labels)))


def labelled_texts(path: str, columns: tuple[str | None, str | None, str | None]) -> Corpus:
    """A file's texts, with a line for whatever was left out; `columns` as for `learn_labels`. Raises DataError."""
    corpus = read_corpus(path, *columns)
    for note in corpus.notes:
        say(note)
    return corpus


def learn_text(job: NextTokenJob, path: str, tracking_uri: str) -> dict[str, object]:
    """`tidecast train --task next-token`: a job on a file."""
    return train_next_token(read_text(path), job, Registry(tracking_uri)).summary()
