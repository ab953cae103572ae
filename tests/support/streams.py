"""A stream of events, and the forecasts that a service makes of it."""

import itertools
from contextlib import suppress

import msgspec
import numpy as np

from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.log import EventLog
from tidecast.errors import UnknownTopic

MINUTE, START = 60_000, 1_700_000_040_000
SERIES, PARTITIONS = 6, 2


class Stream:
    """An input topic, filled one step of all series at a time, and its forecasts."""

    def __init__(self, log: EventLog, topic: str) -> None:
        self.log, self.topic, self.output = log, topic, f"{topic}-forecasts"
        self._steps = itertools.count()
        log.create_topic(topic, PARTITIONS)
        self._producer = log.producer()
        self._forecasts: list[Forecast] = []
        self._read: dict[int, int] = {}
        self._decode = msgspec.json.Decoder(Forecast).decode

    def send(self, steps: int = 1) -> None:
        for step in itertools.islice(self._steps, steps):
            for number in range(SERIES):
                event = Event(f"s{number}", START + step * MINUTE, (float(np.sin(step / 5 + number)),))
                self._producer.send(self.topic, number % PARTITIONS, event.series.encode(), encode(event))
        self._producer.flush()

    def forecasts(self) -> list[Forecast]:
        """All forecasts so far; each record is read once only."""
        with suppress(UnknownTopic):
            for partition, bounds in self.log.bounds(self.output).items():
                for records in self.log.read(self.output, partition, self._read.get(partition, 0), bounds.end):
                    self._forecasts += [self._decode(record.value or b"") for record in records]
                self._read[partition] = bounds.end
        return self._forecasts

    def count(self, model: str) -> int:
        """The number of forecasts by a model so far."""
        return sum(forecast.model == model for forecast in self.forecasts())

    def close(self) -> None:
        self._producer.close()
