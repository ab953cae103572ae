"""`tidecast explain`: recompute a forecast from the log and the registry, and show the window that it was made from."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich.table import Table

from deploy.console import print_table
from deploy.models.loading import load_model
from deploy.pictures import Picture
from deploy.serving.forecast_batches import forecast_batches
from deploy.settings.serve import window_config
from model.card import Card
from model.plots import plot_window
from model.windows import Floats
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import Decode, decode_records
from pipeline.formats.events import Decoder
from pipeline.formats.forecasts import Forecast, encode_forecasts
from pipeline.formats.headers import INPUT, MODEL, OFFSETS, PROVIDER, VERSION, parse_origin
from pipeline.formats.paths import Paths
from pipeline.log import EventLog, Record
from pipeline.windows.batch import Windows
from pipeline.windows.streaming import WindowStore
from tidecast.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RecomputedForecast:
    """A forecast on a topic, its headers, its window, and the same forecast computed again."""

    record: Record
    forecast: Forecast
    headers: dict[str, str]
    window: Windows
    value: bytes
    """The message computed again; its interval and anomaly, which depend on more than the window, are as written."""

    @property
    def same(self) -> bool:
        """Whether the two messages are identical, byte for byte."""
        return self.value == self.record.value


def recompute_forecast(
    log: EventLog,
    topic: str,
    partition: int,
    offset: int,
    model: str | None,
    uri: str,
    lateness: int | None,
    paths: Paths | None = None,
) -> RecomputedForecast:
    """Read the forecast at an offset, rebuild its window, and predict it again.

    `model` is the ONNX file, if the forecast's model was not a registered one; `lateness` is the service's option in
    milliseconds, `paths` its table [decode]. Raises ConfigError if there is no such forecast, or its model or its input
    records are gone.
    """
    record = _read_record(log, topic, partition, offset)
    headers = {name: (content or b"").decode(errors="replace") for name, content in record.headers}
    if missing := [name for name in (MODEL, VERSION, INPUT, OFFSETS) if name not in headers]:
        raise ConfigError(f"{topic}/{partition} at {offset} is not a service's forecast: it has no header {missing[0]}")
    try:
        forecast = msgspec.json.decode(record.value or b"", type=Forecast)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{topic}/{partition} at {offset} is not a service's forecast: {error}") from None
    predictor = load_model(model or headers[VERSION], uri, "cpu")
    if predictor.sha256 != headers[MODEL]:
        raise ConfigError(f"{predictor.label} is not the file that made this forecast: its sha256 differs")
    if not isinstance(predictor.card, Card):
        raise ConfigError(f"{predictor.label} is not a forecasting model")
    decode = Decoder(predictor.card.input.features, paths=paths or Paths()).decode
    store = WindowStore(window_config(predictor.card.input, lateness), short=forecast.source == "naive")
    window = _rebuild_window(log, headers, forecast, store, decode)
    (batch,) = forecast_batches(window, predictor.predict(window), predictor.card, headers[VERSION])
    (value,) = encode_forecasts(batch)
    return RecomputedForecast(record, forecast, headers, window, _with_history(value, forecast))


def _with_history(value: bytes, forecast: Forecast) -> bytes:
    """A message with what the service added to the forecast from all that the series had been before."""
    known = {name: getattr(forecast, name) for name in ("coverage", "lower", "upper", "anomaly")}
    return msgspec.json.encode(msgspec.structs.replace(msgspec.json.decode(value, type=Forecast), **known))


def _read_record(log: EventLog, topic: str, partition: int, offset: int) -> Record:
    for records in log.read(topic, partition, offset, offset + 1):
        for record in records:
            return record
    raise ConfigError(f"{topic}/{partition} has no record at {offset}")


def _rebuild_window(
    log: EventLog, headers: Mapping[str, str], forecast: Forecast, store: WindowStore, decode: Decode
) -> Windows:
    """The window of a forecast, from the input records between the two offsets in its headers."""
    if (origin := parse_origin(headers[INPUT], headers[OFFSETS])) is None:
        raise ConfigError(
            f"its headers {INPUT} {headers[INPUT]!r} and {OFFSETS} {headers[OFFSETS]!r} are not a service's"
        )
    topic, partition, first, last = origin
    for records in log.read(topic, partition, first, last + 1):
        for record, events, _ in decode_records(records, decode):
            for event in events:
                with suppress(InvalidEvent):  # as serving did
                    store.push(event, record.offset)
    windows = store.take()
    identities = zip(windows.series, windows.ts.tolist(), windows.offset.tolist(), strict=True)
    for row, identity in enumerate(identities):
        if identity == (forecast.series, forecast.ts, last):
            return windows.part(row, row + 1)
    input_range = f"the records of {topic}/{partition} from {first} to {last}"
    raise ConfigError(f"{input_range} no longer contain the window of {forecast.series!r}")


def explain(recomputed: RecomputedForecast, picture: Picture) -> dict[str, object]:
    """`tidecast explain`: print a forecast's model and input, whether it can be reproduced, and draw its window."""
    topic, partition, offset = recomputed.record.topic, recomputed.record.partition, recomputed.record.offset
    print_explanation(f"{topic}/{partition} at {offset}", recomputed)
    plot = picture.save(f"{topic}-{partition}-{offset}", lambda path: _plot(recomputed, path))
    fields = msgspec.to_builtins(recomputed.forecast)
    return {"same": recomputed.same, **fields, **recomputed.headers, "plot": plot}


def print_explanation(title: str, recomputed: RecomputedForecast) -> None:
    """Print a forecast's series, model and input, and whether recomputing it gave the same."""
    table = Table(show_header=False, title=title, title_justify="left")
    forecast, headers = recomputed.forecast, recomputed.headers
    model = f"{headers[VERSION]} (sha256 {headers[MODEL][:12]}), {headers.get(PROVIDER, '?')}, {forecast.source}"
    table.add_row("series", forecast.series)
    table.add_row("model", model)
    table.add_row("input", f"{headers[INPUT]}, offsets {headers[OFFSETS]}")
    table.add_row("recomputed", "identical, byte for byte" if recomputed.same else "DIFFERENT")
    print_table(table)


def _plot(recomputed: RecomputedForecast, path: Path) -> None:
    forecast, window = recomputed.forecast, recomputed.window
    known: Floats = window.x[0, -int(window.length[0]) :]
    values = forecast.forecast
    first_target = np.array(values if isinstance(values, list) else next(iter(values.values())))
    title = f"{forecast.series}, by {recomputed.headers[VERSION]}"
    plot_window(known, (forecast.start, forecast.step), first_target, title, path)
