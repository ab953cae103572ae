"""What a service does with a model of each task: which records it takes, what is made of them, what it writes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from deploy.serving.forecasts import forecast_batches, label_batches
from deploy.serving.predictor import ModelInput, Outputs, Predictor
from deploy.settings.serve import ServeConfig, vocabulary, window_config
from model.card import Card, ClassifierCard
from pipeline.formats.decoding import Decode
from pipeline.formats.events import Decoder
from pipeline.formats.forecasts import encode_forecasts
from pipeline.formats.labels import encode_labels
from pipeline.formats.texts import TextDecoder
from pipeline.state.checkpoint import WindowState
from pipeline.windows.grid import Counts, Ints
from pipeline.windows.store import WindowStore
from pipeline.windows.tokens import TextWindower
from tidecast.errors import ConfigError


class PendingBatch(ModelInput, Protocol):
    """What waits to be predicted and answered."""

    @property
    def keys(self) -> list[bytes]:
        """(B,): what the answers are keyed by."""

    @property
    def offset(self) -> Ints:
        """(B,): what was pushed with each."""

    @property
    def first_offset(self) -> Ints:
        """(B,): from what was pushed with which on each was made."""

    @staticmethod
    def concat(parts: Sequence[Any]) -> "PendingBatch":
        """Several of them as one."""


class Windower(WindowState, Protocol):
    """Makes of a partition's events, one by one, what a model takes."""

    counts: Counts

    def push(self, event: Any, offset: int = 0) -> bool:
        """Take in an event, and say whether it is used; what it completes is kept for `take`, with the caller's `tag`.

        Raises InvalidEvent.
        """

    def take(self) -> Any:
        """What was completed since the last take, as PendingBatch."""


@dataclass(frozen=True, slots=True)
class Task:
    """One model's work on a topic: record -> events -> windows -> outputs -> a batch of forecasts -> messages."""

    decode: Decode
    """A record's events."""
    windower: Callable[[], Windower]
    """A new, empty windower for one partition."""
    batches: Callable[[Any, Iterable[Outputs]], Iterator[Any]]
    """What was predicted, as values: columnar batches."""
    encode: Callable[[Any], Iterator[bytes]]
    """A batch's messages."""
    output_kind: str
    """What it writes, in one word."""

    def messages(self, pending: PendingBatch, predictor: Predictor) -> Iterator[bytes]:
        """What the model says of all that waits, in its order; each part is predicted while the one before is used."""
        return chain.from_iterable(map(self.encode, self.batches(pending, predictor.predict(pending))))


def task_of(predictor: Predictor, settings: ServeConfig) -> Task:
    """What a service does with this model. Raises ConfigError for one that has nothing to say about a record."""
    card, label = predictor.card, predictor.label
    if isinstance(card, Card):
        return _forecasting(card, label, settings)
    if isinstance(card, ClassifierCard):
        labels, encoder = card.labels, vocabulary(card.vocabulary).encoder()
        return Task(
            decode=TextDecoder().decode,
            windower=lambda: TextWindower(encoder),
            batches=lambda texts, outputs: label_batches(texts, outputs, labels, label),
            encode=encode_labels,
            output_kind="labels",
        )
    raise ConfigError(f"{label} continues texts: it answers tidecast generate, not a topic")


def _forecasting(card: Card, label: str, settings: ServeConfig) -> Task:
    config, short = window_config(card.input, settings.lateness), settings.short_series == "naive"
    if settings.idle is not None and settings.idle <= config.max_delay:
        raise ConfigError(f"idle: {settings.idle} ms must be longer than a step may be delayed, {config.max_delay} ms")
    return Task(
        decode=Decoder(card.input.features).decode,
        windower=lambda: WindowStore(config, settings.idle, settings.series_limit, short=short),
        batches=lambda windows, outputs: forecast_batches(windows, outputs, card, label),
        encode=encode_forecasts,
        output_kind="forecasts",
    )
