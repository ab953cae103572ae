"""The expected output for a topic, recomputed from its records alone, and its comparison with the actual output.

One forecast for each accepted step that fills a window, identified by (input partition, series, ts), in order within
its series, with the bytes and timestamp that an offline pass gives; one dead letter for each invalid record.
"""

import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec
from cluster import internal_partition
from grades import ungraded

from deploy.models.loading import load_onnx
from deploy.models.predictor import Predictor
from deploy.serving.forecast_batches import forecast_batches
from deploy.settings.serve import window_config
from model.card import Card
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Decoder
from pipeline.formats.forecasts import Forecast, encode_forecasts
from pipeline.log import EventLog, Record
from pipeline.state.records import PARTITION_KEY, decode_partition
from pipeline.windows.choices import SERIES_LIMIT, WAITING_LIMIT
from pipeline.windows.streaming import WindowStore
from tidecast.errors import CorruptState, UnknownTopic

Identity = tuple[int, str, int]
"""Input partition, series, ts."""
History = Mapping[int, Sequence[Record]]
"""A topic's records by partition."""
Place = tuple[str, int, int]
"""Topic, partition, offset."""


class ResetSeries(NamedTuple):
    """Series of one partition whose windows start empty at an offset."""

    offset: int
    series: Collection[str]


@dataclass(slots=True)
class Expected:
    """Forecasts as bytes and timestamp, by identity, and the positions of invalid records."""

    forecasts: dict[Identity, tuple[bytes, int]] = field(default_factory=dict)
    letters: set[Place] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the actual output differs from the expected one; verdicts can be added."""

    forecasts: int = 0
    letters: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    out_of_order: int = 0
    unexpected: int = 0
    letters_lost: int = 0
    letters_duplicated: int = 0
    letters_unexpected: int = 0
    regressed: int = 0
    """Commits and checkpoints before an earlier one: a zombie's."""

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def is_right(self, repeats: int) -> bool:
        """Whether the output is as expected, with at most this many duplicates."""
        duplicates = self.duplicated + self.letters_duplicated
        return bool(sum(astuple(self)[2:]) == duplicates <= repeats)

    def __str__(self) -> str:
        names = ["lost", "duplicated", "wrong", "out of order", "unexpected"]
        names += ["letters lost", "letters duplicated", "unexpected letters", "commits that went back"]
        faults = [f"{count:,} {name}" for name, count in zip(names, astuple(self)[2:], strict=True) if count]
        return f"{self.forecasts:,} forecasts, {self.letters:,} dead letters: {', '.join(faults) or 'each once'}"


class Oracle:
    """Computes the expected output of a model's service."""

    def __init__(self, model: Path, label: str = "") -> None:
        self._predictor: Predictor = load_onnx(model, label or model.name, "cpu")
        assert isinstance(self._predictor.card, Card)
        self._card = self._predictor.card

    def expected_output(
        self,
        history: History,
        reset: Mapping[int, ResetSeries] | None = None,
        limit: int = SERIES_LIMIT,
        lateness: int | None = None,
        waiting_limit: int = WAITING_LIMIT,
    ) -> Expected:
        """The expected output for these records, with so many series and waiting steps per partition at most."""
        expected = Expected()
        for partition, records in history.items():
            config = window_config(self._card.input, lateness)
            stores = [WindowStore(config, limit=limit, waiting_limit=waiting_limit) for _ in range(2)]
            self._add_expected(expected, records, (reset or {}).get(partition, ResetSeries(0, ())), stores)
        return expected

    def _add_expected(
        self, expected: Expected, records: Sequence[Record], reset: ResetSeries, stores: Sequence[WindowStore]
    ) -> None:
        store, after_reset = stores
        decode = Decoder(self._card.input.features).decode
        for place, record in enumerate(records):
            if record.value is None:
                continue
            try:
                (event,) = decode(record)
                is_after_reset = record.offset >= reset.offset and event.series in reset.series
                (after_reset if is_after_reset else store).push(event, place)
            except InvalidEvent:
                expected.letters.add((record.topic, record.partition, record.offset))
        for each in (store, after_reset):
            self._forecast(expected, records, each)

    def _forecast(self, expected: Expected, records: Sequence[Record], store: WindowStore) -> None:
        windows = store.take()
        parts = self._predictor.predict(windows)
        batches = forecast_batches(windows, parts, self._card, self._predictor.label)
        payloads = chain.from_iterable(map(encode_forecasts, batches))
        for series, ts, place, payload in zip(
            windows.series, windows.ts.tolist(), windows.offset.tolist(), payloads, strict=True
        ):
            cause = records[place]
            expected.forecasts[cause.partition, series, ts] = payload, cause.timestamp


def compare(log: EventLog, expected: Expected, output: str, letters: str) -> Verdict:
    """Compare the committed records of a service's output topics with the expected ones."""
    forecasts, wrong, out_of_order = Counter[Identity](), 0, 0
    newest: dict[tuple[int, str], int] = {}
    decode = msgspec.json.Decoder(Forecast).decode
    for partition, records in read(log, output).items():
        for record in records:
            forecast = decode(record.value or b"")
            identity = partition, forecast.series, forecast.ts
            wanted = expected.forecasts.get(identity)
            wrong += wanted is not None and wanted != (ungraded(record.value or b""), record.timestamp)
            if not forecasts[identity]:
                out_of_order += forecast.ts <= newest.get(identity[:2], -1)
                newest[partition, forecast.series] = forecast.ts
            forecasts[identity] += 1
    places = Counter(_place(record) for records in read(log, letters).values() for record in records)
    return Verdict(
        forecasts=len(forecasts),
        letters=len(places),
        lost=len(expected.forecasts.keys() - forecasts),
        duplicated=forecasts.total() - len(forecasts),
        wrong=wrong,
        out_of_order=out_of_order,
        unexpected=len(forecasts.keys() - expected.forecasts),
        letters_lost=len(expected.letters - places.keys()),
        letters_duplicated=places.total() - len(places),
        letters_unexpected=len(places.keys() - expected.letters),
    )


def _place(letter: Record) -> Place:
    headers = dict(letter.headers)
    topic, partition, offset = (headers[f"tidecast.{name}"] for name in ("topic", "partition", "offset"))
    return topic.decode(), int(partition), int(offset)


def regressed(log: EventLog, group: str, state: str) -> int:
    """How many of a group's commits, and of its checkpoints, lie before an earlier one."""
    return _count_regressions(_commits(log, group)) + _count_regressions(_checkpoints(log, state))


def _commits(log: EventLog, group: str) -> Iterator[tuple[object, int]]:
    """The committed offsets of each partition, in the order of __consumer_offsets."""
    where = internal_partition(group) % log.partitions("__consumer_offsets")
    start, end = log.bounds("__consumer_offsets")[where]
    for records in log.read("__consumer_offsets", where, start, end):
        for key, value in ((record.key, record.value) for record in records):
            if key and value and key[:2] in (b"\0\0", b"\0\1") and _first_string(key) == group:
                yield key, struct.unpack(">q", value[2:10])[0]


def _first_string(data: bytes) -> str:
    (length,) = struct.unpack(">h", data[2:4])
    return data[4 : 4 + length].decode()


def _checkpoints(log: EventLog, state: str) -> Iterator[tuple[object, int]]:
    """The positions in each partition's checkpoints; a corrupt one is a fault of its own."""
    with suppress(UnknownTopic):
        for partition, records in read(log, state).items():
            for record in records:
                with suppress(CorruptState):
                    if record.key == PARTITION_KEY:
                        yield partition, decode_partition(record.value or b"").position


def _count_regressions(positions: Iterable[tuple[object, int]]) -> int:
    newest: dict[object, int] = {}
    back = 0
    for where, position in positions:
        back += position < newest.get(where, 0)
        newest[where] = position
    return back


def read(log: EventLog, topic: str) -> dict[int, list[Record]]:
    """All committed records of a topic, by partition."""
    return {
        partition: [record for records in log.read(topic, partition, start, end) for record in records]
        for partition, (start, end) in log.bounds(topic).items()
    }
