"""`tidecast explain`: a forecast computed again from the log and the registry, what it was made from, and what came."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from rich.table import Table

from deploy.console import digits, print_table
from deploy.models.loading import load_model
from deploy.pictures import Picture
from deploy.serving.forecast_batches import forecast_batches
from deploy.settings.serve import window_config
from model.card import Card
from model.plots.forecasts import PANELS, Outlook, history_steps, plot_outlooks, steps_ahead
from model.plots.style import moments
from pipeline.formats.columnar.forecasts import each_forecast
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import Decode, decode_records
from pipeline.formats.events import Decoder
from pipeline.formats.forecasts import Forecast, as_array, encode_forecasts
from pipeline.formats.headers import (
    INPUT,
    MODEL,
    OFFSETS,
    PROVENANCE,
    PROVIDER,
    VERSION,
    Origin,
    parse_origin,
    read_headers,
)
from pipeline.formats.paths import Paths
from pipeline.log import EventLog, Record
from pipeline.windows.batch import Windows
from pipeline.windows.grid import WindowConfig
from pipeline.windows.streaming import WindowStore
from tidecast.errors import ConfigError, LogUnavailable
from tidecast.times import format_time

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
LATER = 4
"""What came is looked for in so many times the records that as many steps had before, and a few thousand more."""
FEW_RECORDS = 10_000
logger = logging.getLogger(__name__)
ANOMALY = 1.0
"""An anomaly's score is above it."""


@dataclass(frozen=True, slots=True)
class RecomputedForecast:
    """A forecast on a topic, its headers, its window, and the same forecast computed again."""

    record: Record
    forecast: Forecast
    headers: dict[str, str]
    window: Windows
    value: bytes
    """The message computed again; its interval and anomaly, which depend on more than the window, are as written."""
    card: Card
    """The model's."""
    decode: Decode
    """How its input records are read."""
    config: WindowConfig
    """The windows that the service cut from them."""

    @property
    def origin(self) -> Origin:
        """Its input records."""
        return _origin(self.headers)

    @property
    def times(self) -> Ints:
        """(K,): the times that it is for, epoch milliseconds."""
        count, grid = np.arange(1, self.card.output.horizon + 1), self.config.grid
        if grid is None:
            return self.forecast.start + self.forecast.step * (count - 1)
        return grid.ahead(self.window.step, self.window.ts, count)

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
    series: str | None = None,
) -> RecomputedForecast:
    """Read the forecast at an offset, rebuild its window, and predict it again.

    `model` is the ONNX file, if the forecast's model was not a registered one; `lateness` is the service's option in
    milliseconds, `paths` its table [decode]; `series` says which one of a columnar message's forecasts is meant. Raises
    ConfigError if there is no such forecast, or its model or its input records are gone.
    """
    record = _chosen(_read_record(log, topic, partition, offset), series)
    headers = read_headers(record.headers)
    if missing := [name for name in (MODEL, VERSION, INPUT, OFFSETS) if name not in headers]:
        raise ConfigError(
            f"{topic}/{partition} at {offset} is not a service's forecast: no {PROVENANCE} has {missing[0]}"
        )
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
    config = window_config(predictor.card.input, lateness)
    window = _rebuild_window(log, headers, forecast, WindowStore(config, short=forecast.source == "naive"), decode)
    (batch,) = forecast_batches(window, predictor.predict(window), predictor.card, headers[VERSION])
    (value,) = encode_forecasts(batch)
    value = _with_history(value, forecast)
    return RecomputedForecast(record, forecast, headers, window, value, predictor.card, decode, config)


def _with_history(value: bytes, forecast: Forecast) -> bytes:
    """A message with what the service added to the forecast from all that the series had been before."""
    known = {name: getattr(forecast, name) for name in ("coverage", "lower", "upper", "anomaly")}
    return msgspec.json.encode(msgspec.structs.replace(msgspec.json.decode(value, type=Forecast), **known))


def _read_record(log: EventLog, topic: str, partition: int, offset: int) -> Record:
    for records in log.read(topic, partition, offset, offset + 1):
        for record in records:
            return record
    raise ConfigError(f"{topic}/{partition} has no record at {offset}")


def _chosen(record: Record, series: str | None) -> Record:
    """A forecast as a record of its own: of a columnar message's the newest of the series. Raises ConfigError."""
    place, all_of = f"{record.topic}/{record.partition} at {record.offset}", list(each_forecast([record]))
    found = [each for each in all_of if series is None or each.key == series.encode()]
    if not found:
        raise ConfigError(f"{place} has no forecast of {series!r}")
    if series is None and len(all_of) > 1:
        raise ConfigError(f"{place} has {len(all_of):,} forecasts: --of says of which series")
    if len(found) > 1:
        logger.info(f"{place} has {len(found):,} forecasts of {series!r}: the newest is explained")
    return found[-1]


def _rebuild_window(
    log: EventLog, headers: Mapping[str, str], forecast: Forecast, store: WindowStore, decode: Decode
) -> Windows:
    """The window of a forecast, from the input records between the two offsets in its headers."""
    topic, partition, first, last = _origin(headers)
    for records in log.read(topic, partition, first, last + 1):
        _push(store, records, decode)
    windows = store.take()
    identities = zip(windows.series, windows.ts.tolist(), windows.offset.tolist(), strict=True)
    for row, identity in enumerate(identities):
        if identity == (forecast.series, forecast.ts, last):
            return windows.part(row, row + 1)
    input_range = f"the records of {topic}/{partition} from {first} to {last}"
    raise ConfigError(f"{input_range} no longer contain the window of {forecast.series!r}")


def _origin(headers: Mapping[str, str]) -> Origin:
    """The input records of a forecast. Raises ConfigError."""
    if (origin := parse_origin(headers[INPUT], headers[OFFSETS])) is None:
        found = f"{INPUT} {headers[INPUT]!r} and {OFFSETS} {headers[OFFSETS]!r}"
        raise ConfigError(f"its headers {found} are not a service's")
    return origin


def _push(store: WindowStore, records: Sequence[Record], decode: Decode) -> None:
    """Extend windows by records, as serving does."""
    for record, events, _ in decode_records(records, decode):
        for event in events:
            with suppress(InvalidEvent):
                store.push(event, record.offset)


@dataclass(frozen=True, slots=True)
class Steps:
    """The observed steps of a forecast's series, as the service's windows would have them."""

    number: Ints
    """(n,): 0 is the step that the forecast was made at, 1 the first that it is for."""
    ts: Ints
    """(n,): epoch milliseconds."""
    values: Reals
    """(n,O): of the targets."""

    def came(self, horizon: int) -> Reals:
        """(K,O): what really happened at the steps that were forecast; nan where the topic does not have it (yet)."""
        values = np.full((horizon, self.values.shape[1]), np.nan)
        ahead = (self.number > 0) & (self.number <= horizon)
        values[self.number[ahead] - 1] = self.values[ahead]
        return values


def read_steps(log: EventLog, recomputed: RecomputedForecast) -> Steps:
    """Read a forecast's input again, and on from there: up to its horizon, the topic's end, or many more records."""
    topic, partition, first, last = recomputed.origin
    horizon, final = recomputed.card.output.horizon, recomputed.times[-1]
    share = LATER * horizon / int(recomputed.window.length[0])
    end = min(log.bounds(topic)[partition].end, last + 1 + FEW_RECORDS + int(share * (last + 1 - first)))
    store, parts, after = WindowStore(replace(recomputed.config, seq_len=2), short=True), [], 0
    with suppress(LogUnavailable):  # an open transaction, or none of it any more: what is known is shown
        for records in log.read(topic, partition, first, end):
            _push(store, records, recomputed.decode)
            steps = store.take()
            rows = [row for row, series in enumerate(steps.series) if series == recomputed.forecast.series]
            parts.append(steps.chosen(np.array(rows, np.int64)))
            after += int((parts[-1].ts > recomputed.forecast.ts).sum())
            if (parts[-1].ts >= final).any() and (recomputed.config.grid is not None or after >= horizon):
                break
    found = Windows.concat([*parts, store.take()])
    number = found.step - recomputed.window.step[0]
    if recomputed.config.grid is None:
        number = np.arange(len(found)) - int((found.ts <= recomputed.forecast.ts).sum()) + 1
    return Steps(number, found.ts, found.x[:, -1][:, recomputed.card.target_columns])


def explain(log: EventLog, recomputed: RecomputedForecast, picture: Picture) -> dict[str, object]:
    """`tidecast explain`: print a forecast's model and input, whether it can be reproduced, and what came."""
    topic, partition, offset = recomputed.record.topic, recomputed.record.partition, recomputed.record.offset
    steps, targets = read_steps(log, recomputed), recomputed.card.output.targets
    came = steps.came(recomputed.card.output.horizon)
    print_explanation(f"{topic}/{partition} at {offset}", recomputed, came)
    plot = picture.save(f"{topic}-{partition}-{offset}", lambda path: _plot(recomputed, steps, path))
    known: list[list[float | None]] = [[None if isnan(each) else each for each in column] for column in came.T.tolist()]
    actual = known[0] if len(targets) == 1 else dict(zip(targets, known, strict=True))
    fields = msgspec.to_builtins(recomputed.forecast)
    return {"same": recomputed.same, **fields, "actual": actual, **recomputed.headers, "plot": plot}


def print_explanation(title: str, recomputed: RecomputedForecast, came: Reals) -> None:
    """Print a forecast's series, model and input, whether recomputing it gave the same, and how far off it was."""
    table = Table(show_header=False, title=title, title_justify="left")
    forecast, headers = recomputed.forecast, recomputed.headers
    model = f"{headers[VERSION]} (sha256 {headers[MODEL][:12]}), {headers.get(PROVIDER, '?')}, {forecast.source}"
    table.add_row("series", forecast.series)
    table.add_row("model", model)
    table.add_row("input", f"{headers[INPUT]}, offsets {headers[OFFSETS]}")
    table.add_row("recomputed", "identical, byte for byte" if recomputed.same else "DIFFERENT")
    table.add_row("what came", _off_by(forecast, came))
    print_table(table)


def _off_by(forecast: Forecast, came: Reals) -> str:
    """How far the first target's forecast was off what came, in words."""
    values, actual = as_array(forecast.forecast)[:, 0], came[:, 0]
    known = np.isfinite(actual)
    if not known.any():
        return "not known yet"
    off = float(np.abs(actual - values)[known].mean())
    words = f"{known.sum():,} of {len(known):,} steps, off by {off:,.{digits([off])}g} on average"
    if forecast.lower is not None and forecast.upper is not None:
        lower, upper = as_array(forecast.lower)[:, 0], as_array(forecast.upper)[:, 0]
        words += f", {((lower <= actual) & (actual <= upper))[known].mean():.0%} of them inside the interval"
    return words


def _plot(recomputed: RecomputedForecast, steps: Steps, path: Path) -> None:
    forecast, card = recomputed.forecast, recomputed.card
    horizon, values = card.output.horizon, as_array(recomputed.forecast.forecast)
    past = np.flatnonzero((steps.number <= 0) & (steps.number > -history_steps(horizon, 2)))
    anomaly = forecast.anomaly if (forecast.anomaly or 0) > ANOMALY else None
    bounded = forecast.lower is not None and forecast.upper is not None
    lower, upper = (as_array(side) if side is not None else values for side in (forecast.lower, forecast.upper))
    looks = [
        Outlook(
            title=target if len(card.output.targets) > 1 else "",
            unit=target,
            times=moments(steps.ts[past]),
            values=steps.values[past, place],
            ahead=moments(recomputed.times),
            forecast=values[:, place],
            bands={f"{100 * (forecast.coverage or 0):g} %": (lower[:, place], upper[:, place])} if bounded else {},
            came=steps.came(horizon)[:, place],
            is_naive=forecast.source == "naive",
            anomaly=None if place else anomaly,
        )
        for place, target in enumerate(card.output.targets[:PANELS])
    ]
    made = f"made at {format_time(forecast.ts)} by {recomputed.headers[VERSION]}"
    plot_outlooks(looks, f"{forecast.series}, {steps_ahead(card)}, {made}", path)
