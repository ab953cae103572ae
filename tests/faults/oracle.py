"""What should have come of a topic, recomputed from its records alone, and what came.

One forecast for each accepted step that fills a window, known by (input partition, series, ts), in order within its
series, each with the bytes and the time that the same records give offline; one dead letter for each record that is
no event.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from deploy.serving.forecast_batches import forecast_batches
from deploy.serving.model_loading import load_onnx
from deploy.serving.predictor import Predictor
from deploy.settings.serve import window_config
from model.card import Card
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Decoder
from pipeline.formats.forecasts import Forecast, encode_forecasts
from pipeline.log import EventLog, Record
from pipeline.windows.streaming import SERIES_LIMIT, WindowStore

Identity = tuple[int, str, int]
"""Input partition, series, ts."""
History = Mapping[int, Sequence[Record]]
"""A topic's records by partition."""
Place = tuple[str, int, int]
"""Topic, partition, offset."""


class Forgotten(NamedTuple):
    """Series of one partition whose windows are empty again from an offset on."""

    offset: int
    series: Collection[str]


@dataclass(slots=True)
class Expected:
    """Forecasts as bytes and record time, by identity, and the places of records that are dead letters."""

    forecasts: dict[Identity, tuple[bytes, int]] = field(default_factory=dict)
    letters: set[Place] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How what came differs from what should have; adds up."""

    forecasts: int = 0
    letters: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    disordered: int = 0
    alien: int = 0
    letters_lost: int = 0
    letters_duplicated: int = 0
    letters_alien: int = 0
    went_back: int = 0
    """Commits and checkpoints that lie before an earlier one: a zombie's."""

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def is_right(self, repeats: int) -> bool:
        """Whether all is as it should be, but for up to so many outputs that came again."""
        again = self.duplicated + self.letters_duplicated
        return bool(sum(astuple(self)[2:]) == again <= repeats)

    def __str__(self) -> str:
        names = ["lost", "duplicated", "wrong", "out of order", "alien"]
        names += ["letters lost", "letters duplicated", "alien letters", "commits that went back"]
        faults = [f"{count:,} {name}" for name, count in zip(names, astuple(self)[2:], strict=True) if count]
        return f"{self.forecasts:,} forecasts, {self.letters:,} dead letters: {', '.join(faults) or 'each once'}"


class Oracle:
    """Knows what a model's service should make of a topic."""

    def __init__(self, model: Path, label: str = "") -> None:
        self._predictor: Predictor = load_onnx(model, label or model.name, "cpu")
        assert isinstance(self._predictor.card, Card)
        self._card = self._predictor.card

    def expect(
        self, history: History, forgotten: Mapping[int, Forgotten] | None = None, limit: int = SERIES_LIMIT
    ) -> Expected:
        """What should come of these records; no more than `limit` series a partition."""
        expected = Expected()
        for partition, records in history.items():
            self._expect(expected, records, (forgotten or {}).get(partition, Forgotten(0, ())), limit)
        return expected

    def _expect(self, expected: Expected, records: Sequence[Record], forgotten: Forgotten, limit: int) -> None:
        config = window_config(self._card.input)
        store, anew = (WindowStore(config, limit=limit) for _ in range(2))
        decode = Decoder(self._card.input.features).decode
        for place, record in enumerate(records):
            if record.value is None:
                continue
            try:
                (event,) = decode(record)
                is_anew = record.offset >= forgotten.offset and event.series in forgotten.series
                (anew if is_anew else store).push(event, place)
            except InvalidEvent:
                expected.letters.add((record.topic, record.partition, record.offset))
        for each in (store, anew):
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


def judge(log: EventLog, expected: Expected, output: str, letters: str) -> Verdict:
    """Compare what is committed on a service's two output topics with what should be."""
    forecasts, wrong, disordered = Counter[Identity](), 0, 0
    newest: dict[tuple[int, str], int] = {}
    decode = msgspec.json.Decoder(Forecast).decode
    for partition, records in read(log, output).items():
        for record in records:
            forecast = decode(record.value or b"")
            identity = partition, forecast.series, forecast.ts
            wanted = expected.forecasts.get(identity)
            wrong += wanted is not None and wanted != (record.value, record.timestamp)
            if not forecasts[identity]:
                disordered += forecast.ts <= newest.get(identity[:2], -1)
                newest[partition, forecast.series] = forecast.ts
            forecasts[identity] += 1
    places = Counter(_place(record) for records in read(log, letters).values() for record in records)
    return Verdict(
        forecasts=len(forecasts),
        letters=len(places),
        lost=len(expected.forecasts.keys() - forecasts),
        duplicated=forecasts.total() - len(forecasts),
        wrong=wrong,
        disordered=disordered,
        alien=len(forecasts.keys() - expected.forecasts),
        letters_lost=len(expected.letters - places.keys()),
        letters_duplicated=places.total() - len(places),
        letters_alien=len(places.keys() - expected.letters),
    )


def _place(letter: Record) -> Place:
    headers = dict(letter.headers)
    topic, partition, offset = (headers[f"tidecast.{name}"] for name in ("topic", "partition", "offset"))
    return topic.decode(), int(partition), int(offset)


def read(log: EventLog, topic: str) -> dict[int, list[Record]]:
    """All that is committed on a topic."""
    return {
        partition: [record for records in log.read(topic, partition, start, end) for record in records]
        for partition, (start, end) in log.bounds(topic).items()
    }
