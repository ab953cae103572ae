"""What a service does with a model of each task: how records are decoded, windowed, predicted and encoded."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from deploy.models.predictor import ModelInput, Outputs, Predictor
from deploy.serving.forecast_batches import Faults, forecast_batches, label_batches
from deploy.settings.serve import ServeConfig, vocabulary, window_config
from model.card import Card, ClassifierCard
from pipeline.formats.bulk import Run, one_by_one
from pipeline.formats.columnar.forecasts import MESSAGE_BYTES
from pipeline.formats.decoding import Decode, Note, nothing_to_tell
from pipeline.formats.events import Decoder
from pipeline.formats.forecasts import encode_forecasts
from pipeline.formats.labels import encode_labels
from pipeline.formats.texts import TextDecoder
from pipeline.log import Record
from pipeline.state.checkpoint import WindowState
from pipeline.windows.batch import Companion
from pipeline.windows.grid import Counts, Ints
from pipeline.windows.streaming import WindowStore
from pipeline.windows.tokens import TextWindower
from tidecast.errors import ConfigError

Complete = Callable[[Any, Mapping[int, str]], Any]
"""Completes a chunk of columnar forecasts; takes the failed rows of the whole batch."""
NUMBER_BYTES = 25
"""The most that a number takes as JSON, with its comma: -1.1754943508222875e-38,"""


class PendingBatch(ModelInput, Protocol):
    """B complete windows or texts, not yet predicted."""

    @property
    def keys(self) -> list[bytes]:
        """(B,): the output records' keys."""

    @property
    def offset(self) -> Ints:
        """(B,): the offset of the record that completed each."""

    @property
    def first_offset(self) -> Ints:
        """(B,): the offset of the oldest record that each contains."""

    @staticmethod
    def concat(parts: Sequence[Any]) -> "PendingBatch":
        """Several batches as one."""


class Windower(WindowState, Protocol):
    """Turns a partition's events, one by one, into model inputs."""

    counts: Counts

    def __len__(self) -> int:
        """The series that are held."""

    def push(self, event: Any, offset: int = 0) -> bool:
        """Add an event from the record at `offset`; False if it was late or a duplicate.

        Windows that it completes are kept for `take`. Raises InvalidEvent.
        """

    def take(self) -> Any:
        """The windows completed since the last call, as a PendingBatch."""


@dataclass(frozen=True, slots=True)
class Task:
    """The steps from input record to output message for one model: decode, window, predict, postprocess, encode."""

    decode: Decode
    """A record's events."""
    windower: Callable[[Companion | None], Windower]
    """Creates an empty windower for one partition; what else is kept of its series has a part in its checkpoints."""
    postprocess: Callable[[Any, Iterable[Outputs], Faults], Iterator[Any]]
    """From a pending batch and the model's outputs to columnar forecasts or labels."""
    encode: Callable[[Any], Iterator[bytes]]
    """From columnar forecasts or labels to messages."""
    output_kind: str
    """forecasts or labels."""
    message_bytes: int
    """The size of a large message; that of a forecast has no larger one."""
    features: tuple[str, ...] = ()
    """The names of an event's values."""
    decode_many: Callable[[Sequence[Record]], Iterable[Run]] = one_by_one
    """The events of records that can be decoded together."""
    describe: Callable[[Iterable[Record]], list[Note]] = nothing_to_tell
    """How records are read, as far as it has not been told before."""

    def predict(
        self,
        pending: PendingBatch,
        predictor: Predictor,
        faults: Faults,
        complete: Complete | None = None,
    ) -> Iterator[Any]:
        """The columnar forecasts or labels for a pending batch, chunk by chunk, the next predicted meanwhile.

        A row that is in `faults.failed` once its chunk is there has no output: it is void. `complete` adds to the
        columns of a chunk what is known of them besides.
        """
        outputs = predictor.predict(pending, faults.failed)
        if complete is None:
            return self.postprocess(pending, outputs, faults)
        chunks = self.postprocess(pending, _growing(outputs), faults)
        return (complete(columns, faults.failed) for columns in chunks)


def _growing(outputs: Iterator[Outputs]) -> Iterator[Outputs]:
    """The first chunk, then twice as many at a time: the more rows, the less it takes to grade each."""
    count = 1
    while chunks := list(islice(outputs, count)):
        yield np.concatenate(chunks)
        count *= 2


def task_for(predictor: Predictor, config: ServeConfig) -> Task:
    """The task of a model. Raises ConfigError for a model that can't be served on a topic."""
    card, label = predictor.card, predictor.label
    if isinstance(card, Card):
        return _forecasting(card, label, config)
    if isinstance(card, ClassifierCard):
        if config.format != "json":
            raise ConfigError(f"format: {label} writes labels, which are in JSON only")
        return _classification(card, label)
    raise ConfigError(f"{label} is a next-token model: use it with tidecast generate; it can't be served on a topic")


def _forecasting(card: Card, label: str, config: ServeConfig) -> Task:
    windows, short = window_config(card.input, config.lateness), config.short_series == "naive"
    if config.idle is not None and config.idle <= windows.max_delay:
        raise ConfigError(f"idle: {config.idle} ms must be longer than a step may be delayed, {windows.max_delay} ms")
    numbers = 1 if config.coverage is None else 3
    message_bytes = 1024 + numbers * card.output.horizon * len(card.output.targets) * NUMBER_BYTES
    if config.format == "arrow":
        message_bytes = max(message_bytes, 2 * MESSAGE_BYTES)
    decoder = Decoder(card.input.features, paths=config.paths)
    return Task(
        decode=decoder.decode,
        decode_many=decoder.decode_many,
        describe=decoder.describe,
        windower=lambda companion: WindowStore(
            windows,
            config.idle,
            config.series_limit,
            short=short or companion is not None,
            waiting_limit=config.waiting_limit,
            companion=companion,
        ),
        postprocess=lambda pending, outputs, faults: forecast_batches(pending, outputs, card, label, faults),
        encode=encode_forecasts,
        output_kind="forecasts",
        message_bytes=message_bytes,
        features=card.input.features,
    )


def _classification(card: ClassifierCard, label: str) -> Task:
    encoder = vocabulary(card.vocabulary).encoder()
    return Task(
        decode=TextDecoder().decode,
        windower=lambda _: TextWindower(encoder),
        postprocess=lambda pending, outputs, faults: label_batches(pending, outputs, card.labels, label, faults),
        encode=encode_labels,
        output_kind="labels",
        message_bytes=2048,
    )
