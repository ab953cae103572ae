"""What a service does with a model of each task: which records it takes, what is made of them, what it says."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deploy.config import ServeConfig, vocabulary, window_config
from deploy.messages import encode_forecasts, encode_labels
from deploy.predictor import Outputs, Predictor, Ready
from model.spec import Card, ClassifierCard
from pipeline.checkpoint import Stateful
from pipeline.events import Decoder
from pipeline.grid import Counts, Ints
from pipeline.log import Record
from pipeline.text import TextDecoder, TextWindower
from pipeline.windows import WindowStore
from tidecast.errors import ConfigError


class Answerable(Ready, Protocol):
    """What waits to be predicted and answered."""

    @property
    def keys(self) -> list[bytes]:
        """(B,): what the answers are keyed by."""

    @property
    def tag(self) -> Ints:
        """(B,): what was pushed with each."""

    @property
    def since(self) -> Ints:
        """(B,): from what was pushed with which on each was made."""

    @staticmethod
    def concat(parts: Sequence[Any]) -> "Answerable":
        """Several of them as one."""


class Windower(Stateful, Protocol):
    """Makes of a partition's events, one by one, what a model takes."""

    counts: Counts

    def push(self, event: Any, tag: int = 0) -> bool:
        """Take in an event, and say whether it is used; what it completes is kept for `take`, with the caller's `tag`.

        Raises InvalidEvent.
        """

    def take(self) -> Any:
        """What was completed since the last take, as Answerable."""


@dataclass(frozen=True, slots=True)
class Task:
    """One model's work on a topic."""

    decode: Callable[[Record], Any]
    """A record's event. Raises InvalidEvent."""
    windower: Callable[[], Windower]
    """A new, empty windower for one partition."""
    encode: Callable[[Any, Iterable[Outputs]], Iterator[bytes]]
    """The messages that say what the model gave."""
    called: str
    """What it writes, in one word."""


def task_of(predictor: Predictor, settings: ServeConfig) -> Task:
    """What a service does with this model. Raises ConfigError for one that has nothing to say about a record."""
    card, label = predictor.card, predictor.label
    if isinstance(card, Card):
        config, short = window_config(card.input, settings.lateness), settings.short_series == "naive"
        if settings.idle is not None and settings.idle <= config.patience:
            raise ConfigError(f"idle: {settings.idle} ms is no longer than a step may wait, {config.patience} ms")
        return Task(
            decode=Decoder(card.input.features).decode,
            windower=lambda: WindowStore(config, settings.idle, settings.series_limit, short=short),
            encode=lambda windows, parts: encode_forecasts(windows, parts, card, label),
            called="forecasts",
        )
    if isinstance(card, ClassifierCard):
        labels, encoder = card.labels, vocabulary(card.vocabulary).encoder()
        return Task(
            decode=TextDecoder().decode,
            windower=lambda: TextWindower(encoder),
            encode=lambda texts, parts: encode_labels(texts, parts, labels, label),
            called="labels",
        )
    raise ConfigError(f"{label} continues texts: it answers tidecast generate, not a topic")
