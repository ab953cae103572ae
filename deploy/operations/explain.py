"""`tidecast explain`: a forecast made again, from the log and the registry, and shown with the window it is from."""

import re
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from deploy.pictures import picture_path, say_where
from deploy.serving.forecasts import forecast_batches
from deploy.serving.model_loading import load_model
from deploy.settings.serve import window_config
from model.card import Card
from model.plots import plot_window
from model.windows import Floats
from pipeline.formats.decoding import decode_records
from pipeline.formats.errors import InvalidEvent
from pipeline.formats.events import Decoder
from pipeline.formats.forecasts import Forecast, encode_forecasts
from pipeline.formats.headers import INPUT, MODEL, OFFSETS, PROVIDER, VERSION
from pipeline.log import EventLog, Record
from pipeline.windows.batch import Windows
from pipeline.windows.store import WindowStore
from tidecast.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Explained:
    """A forecast, what it says of itself, and what was made again."""

    record: Record
    forecast: Forecast
    facts: dict[str, str]
    window: Windows
    again: bytes
    """The same message, made anew."""

    @property
    def same(self) -> bool:
        """Whether it is the same to the bit."""
        return self.again == self.record.value


def explained(
    log: EventLog, topic: str, partition: int, offset: int, model: str | None, uri: str, lateness: int | None
) -> Explained:
    """The forecast at an offset, and the same made again.

    `model` is a file, for a forecast whose model was none of the registry's; `lateness` what serving was given for it.
    Raises ConfigError where there is no such forecast, or what it was made of is gone.
    """
    record = _record(log, topic, partition, offset)
    facts = {name: (content or b"").decode(errors="replace") for name, content in record.headers}
    if missing := [name for name in (MODEL, VERSION, INPUT, OFFSETS) if name not in facts]:
        raise ConfigError(
            f"{topic}/{partition} at {offset} has no header {missing[0]}: it is no forecast of a service's"
        )
    forecast = msgspec.json.decode(record.value or b"", type=Forecast)
    predictor = load_model(model or facts[VERSION], uri, "cpu")
    if predictor.sha256 != facts[MODEL]:
        raise ConfigError(f"{predictor.label}: its file is not the one that made this: its sha256 is another")
    if not isinstance(predictor.card, Card):
        raise ConfigError(f"{predictor.label} makes no forecasts")
    window = _window(log, facts, forecast, predictor.card, lateness)
    (batch,) = forecast_batches(window, predictor.predict(window), predictor.card, facts[VERSION])
    (again,) = encode_forecasts(batch)
    return Explained(record, forecast, facts, window, again)


def _record(log: EventLog, topic: str, partition: int, offset: int) -> Record:
    for records in log.read(topic, partition, offset, offset + 1):
        for record in records:
            return record
    raise ConfigError(f"{topic}/{partition} has no record at {offset}")


def _window(log: EventLog, facts: Mapping[str, str], forecast: Forecast, card: Card, lateness: int | None) -> Windows:
    """The window that a forecast was made of, built again from the records between two offsets."""
    topic, partition, first, last = _origin(facts[INPUT], facts[OFFSETS])
    store = WindowStore(window_config(card.input, lateness), short=forecast.source == "naive")
    decode = Decoder(card.input.features).decode
    for records in log.read(topic, partition, first, last + 1):
        for record, events, _ in decode_records(records, decode):
            for event in events:
                with suppress(InvalidEvent):  # as serving did
                    store.push(event, record.offset)
    windows = store.take()
    found = [
        place
        for place, (series, ts, offset) in enumerate(
            zip(windows.series, windows.ts.tolist(), windows.offset.tolist(), strict=True)
        )
        if (series, ts, offset) == (forecast.series, forecast.ts, last)
    ]
    if not found:
        raise ConfigError(
            f"{topic}/{partition} does not hold, from {first} to {last}, the window of {forecast.series!r} any more"
        )
    return windows.part(found[0], found[0] + 1)


def _origin(source: str, offsets: str) -> tuple[str, int, int, int]:
    """The topic and partition that a forecast's headers name, and the first and last offset. Raises ConfigError."""
    parsed = re.fullmatch(r"(.+)/(\d+) (\d+)-(\d+)", f"{source} {offsets}")
    if parsed is None:
        raise ConfigError(f"its headers {INPUT} {source!r} and {OFFSETS} {offsets!r} are no service's")
    return parsed[1], int(parsed[2]), int(parsed[3]), int(parsed[4])


def explain(
    log: EventLog,
    topic: str,
    partition: int,
    offset: int,
    model: str | None,
    uri: str,
    lateness: int | None,
    plot: Path | None,
) -> dict[str, object]:
    """`tidecast explain`: what a forecast was made of and by what, whether it comes out the same, and a picture."""
    with closing(log):
        found = explained(log, topic, partition, offset, model, uri, lateness)
    table = Table(show_header=False, title=f"{topic}/{partition} at {offset}", title_justify="left")
    forecast, facts = found.forecast, found.facts
    lines = {
        "series": forecast.series,
        "made by": f"{facts[VERSION]} (sha256 {facts[MODEL][:12]}), {facts.get(PROVIDER, '?')}, {forecast.source}",
        "made of": f"{facts[INPUT]}, offsets {facts[OFFSETS]}",
        "made again": "the same to the bit" if found.same else "DIFFERENT",
    }
    for name, line in lines.items():
        table.add_row(name, line)
    Console(highlight=False).print(table)
    picture = picture_path(plot, "explained", f"{topic}-{partition}-{offset}")
    plot_window(
        _known(found.window), _times(forecast), _values(forecast), f"{forecast.series}, by {facts[VERSION]}", picture
    )
    say_where(picture)
    return {"same": found.same, **msgspec.to_builtins(forecast), **facts, "plot": str(picture)}


def _known(window: Windows) -> Floats:
    return window.x[0, -int(window.length[0]) :]


def _values(forecast: Forecast) -> Floats:
    made = forecast.forecast
    return np.array(made if isinstance(made, list) else next(iter(made.values())))


def _times(forecast: Forecast) -> tuple[int, int]:
    return forecast.start, forecast.step
