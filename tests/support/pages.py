"""Topics as a service leaves them: what a page has to show, without the service; and a page that is watched."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from playwright.sync_api import Page

from pipeline.formats.alerts import Alert, encode_alert
from pipeline.formats.dead_letters import InvalidEvent, encode_dead_letter
from pipeline.formats.events import Event, encode
from pipeline.formats.forecasts import Forecast
from pipeline.formats.scores import ModelScores, SeriesScores, encode_scores
from pipeline.log.connect import connect

STEP, START = 1_800_000, 1_795_000_000_000 // 1_800_000 * 1_800_000
HORIZON = 4
STEPS = [1, 2, 4]
MODELS = ("pumps/1", "pumps/2")


class Written:
    """The topics of a service of some series, all of whose values, forecasts and scores are known."""

    def __init__(self, address: str, series: Sequence[str], topic: str = "pumps") -> None:
        self.address, self.topic, self.series = address, topic, series
        log = self.log = connect(address)
        self.output, self.group = f"{topic}-forecasts", f"tidecast-{topic}"
        self.steps = 0
        for name in (topic, self.output, f"{self.output}-scores", f"{self.output}-alerts"):
            log.create_topic(name, 1)
        log.create_topic(f"{self.group}-dead-letters", 1)
        log.create_topic(f"{self.group}-state", 1, compacted=True)
        self._producer = log.producer()
        self._encode = msgspec.json.Encoder().encode

    def value(self, number: int, step: int) -> float:
        """Of a series at a step."""
        return round(100 + 10 * number % 97 + 40 * math.sin(step / 7.6 + number), 3)

    def forecast(self, number: int, step: int) -> Forecast:
        """Made at a step; each is too high by its steps ahead, and its interval is 3 wide on either side."""
        values = [self.value(number, step + k) + k for k in range(1, HORIZON + 1)]
        lower, upper = [value - 3 for value in values], [value + 3 for value in values]
        ts, name = START + step * STEP, self.series[number]
        return Forecast(
            name, ts, ts + STEP, STEP, values, "model", MODELS[step > 40], 0.9, lower, upper, 1.5 if step == 30 else 0.2
        )

    def write(self, steps: int, *, forecasts: bool = True) -> None:
        """Further steps of all series, and their forecasts (False: a service that refills its windows)."""
        for step in range(self.steps, self.steps + steps):
            for number, name in enumerate(self.series):
                event = Event(name, START + step * STEP, (self.value(number, step),))
                self._send(self.topic, name, encode(event))
                if forecasts:
                    self._send(self.output, name, self._encode(self.forecast(number, step)))
        self._producer.flush()
        self.steps += steps

    def score(self) -> None:
        """A closed bucket of scores of each series and version: the first series is the worst."""
        for number, name in enumerate(self.series):
            for model, start in zip(MODELS, (0, 47), strict=True):
                error = 120 - 100 * number / len(self.series)
                sums = ModelScores(
                    model=model,
                    target="value",
                    count=[40, 40, 40],
                    absolute_error=[error] * 3,
                    squared_error=[error**2] * 3,
                    naive_absolute_error=[80.0 + 40 * (start > 0)] * 3,
                    naive_squared_error=[6400.0] * 3,
                    intervals=[40, 40, 40],
                    inside=[36, 36, 35],
                    width=[240.0] * 3,
                    winkler=[300.0] * 3,
                )
                bucket = SeriesScores(
                    series=name,
                    start=START + start * STEP,
                    until=START + (start + 39) * STEP,
                    steps=STEPS,
                    naive=48,
                    coverage=0.9,
                    scale={"value": 2.0},
                    unscored={"value": [0, 0, 0]},
                    scores=[sums],
                )
                self._send(f"{self.output}-scores", name, encode_scores(bucket))
        self._producer.flush()

    def alert(self, number: int, text: str) -> None:
        """A level shift that goes on."""
        ts, name = START + (self.steps - 5) * STEP, self.series[number]
        about: dict[str, Any] = {"size": 9.0, "value": 109.0, "usual": 100.0, "text": text}
        alert = Alert(series=name, kind="level_shift", phase="begin", ts=ts, since=ts - 2 * STEP, **about)
        self._send(f"{self.output}-alerts", name, encode_alert(alert))
        self._producer.flush()

    def dead_letter(self, value: bytes) -> None:
        """A record that is not JSON, and its dead letter."""
        self._send(self.topic, "broken", value)
        self._producer.flush()
        end = self.log.bounds(self.topic)[0].end
        (record,) = (record for records in self.log.read(self.topic, 0, end - 1, end) for record in records)
        letter = encode_dead_letter(record, InvalidEvent("malformed_json", "not JSON, at byte 3"))
        self._producer.send(f"{self.group}-dead-letters", 0, letter.key, letter.value, headers=letter.headers)
        self._producer.flush()

    def close(self) -> None:
        self._producer.close()
        self.log.close()

    def _send(self, topic: str, key: str, value: bytes) -> None:
        self._producer.send(topic, 0, key.encode(), value)


class Watched:
    """What pages did that they must not: a word on the console, a failure, a dialog, a request to another host."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.asked: set[str] = set()

    def over(self, page: Page) -> Page:
        """Watch a page."""
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error.stack}"))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self.asked.add(request.url.split("/")[2]))
        return page

    def _dismiss(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()
