"""The codec of columnar forecasts: many of them in one message, each column as in ForecastBatch.

    series, source, model   dictionaries of texts
    ts, start               timestamps in milliseconds, UTC; step their distance in milliseconds
    forecast, lower, upper  lists of K numbers; of several targets a column for each: forecast.flow, forecast.pressure
    coverage, anomaly       numbers, or null
    first_offset, offset    of the input records that each is made of, FIRST-LAST as in the headers

B forecasts   K horizon steps   O targets
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from pipeline.formats.columnar.ipc import Ints, Table, read_table
from pipeline.formats.columnar.points import is_columnar
from pipeline.formats.columnar.writing import Column, Moments, words_of, write_stream
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.forecasts import ForecastBatch, encode_forecasts
from pipeline.formats.headers import OFFSETS, read_headers
from pipeline.log import Record, StoredRecord

MESSAGE_BYTES = 262_144
"""About the largest message of several forecasts."""
ROW_BYTES = 100
"""About what a forecast takes besides its numbers."""
VALUES = ("forecast", "lower", "upper")
NEEDED = ("series", "ts", "start", "step", "source", "model", "first_offset", "offset")


class Made(NamedTuple):
    """B forecasts, and the records of the input that each is made of."""

    batch: ForecastBatch
    first: Ints
    """(B,): the offset of the oldest record of each."""
    last: Ints
    """(B,): that of the record which completed it."""

    def chosen(self, rows: Ints) -> "Made":
        """Those at these rows."""
        given = {each.name: getattr(self.batch, each.name) for each in fields(ForecastBatch)}
        for name, column in given.items():
            if isinstance(column, np.ndarray):
                given[name] = column[rows]
            elif isinstance(column, list):
                given[name] = [column[row] for row in rows.tolist()]
        return Made(ForecastBatch(**given), self.first[rows], self.last[rows])


def concat(batches: Sequence[ForecastBatch]) -> ForecastBatch:
    """Several batches of one model as one."""
    first = batches[0]
    if len(batches) == 1:
        return first
    joined: dict[str, Any] = {}
    for each in fields(ForecastBatch):
        parts = [getattr(batch, each.name) for batch in batches]
        if isinstance(parts[0], np.ndarray):
            joined[each.name] = np.concatenate(parts)
        elif isinstance(parts[0], list):
            joined[each.name] = [item for part in parts for item in part]
    return replace(first, **joined)


def encode_columns(made: Made) -> Iterator[tuple[bytes, Made]]:
    """The messages of some forecasts, in order, with what each holds: as few as MESSAGE_BYTES allows."""
    batch, count = made.batch, len(made.batch)
    numbers = sum(values.nbytes for values in (batch.forecast, batch.lower, batch.upper) if values is not None)
    at_once = max(1, MESSAGE_BYTES // (ROW_BYTES + numbers // max(1, count)))
    for start in range(0, count, at_once):
        part = made if count <= at_once else made.chosen(np.arange(start, min(count, start + at_once)))
        yield _encode(part), part


def _encode(made: Made) -> bytes:
    batch = made.batch
    columns: dict[str, Column] = {
        "series": words_of(batch.series),
        "ts": Moments(batch.ts),
        "start": Moments(batch.start),
        "step": batch.step,
        **_value_columns(batch),
        "source": words_of(batch.source),
        "model": words_of(batch.model),
    }
    if batch.coverage is not None:
        columns["coverage"] = np.full(len(batch), batch.coverage)
    if batch.anomaly is not None:
        columns["anomaly"] = np.array(batch.anomaly, np.float64)
    return write_stream(columns | {"first_offset": made.first, "offset": made.last})


def _value_columns(batch: ForecastBatch) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for name in VALUES:
        values = getattr(batch, name)
        for place, target in enumerate(batch.targets if values is not None else ()):
            column = name if len(batch.targets) == 1 else f"{name}.{target}"
            found[column] = np.ascontiguousarray(values[:, :, place])
    return found


def decode_columns(value: bytes) -> Made:
    """The forecasts of a message. Raises InvalidEvent."""
    table = read_table(value)
    if missing := [name for name in NEEDED if name not in table.fields]:
        raise InvalidEvent("schema", f"it has no column {missing[0]}: it is not a service's")
    targets = tuple(name.removeprefix("forecast.") for name in table.fields if name.startswith("forecast."))
    texts = [[text or "" for text in table.texts(name).rows()] for name in ("series", "source", "model")]
    ints = [table.numbers(name).values.astype(np.int64) for name in ("ts", "start", "step", "first_offset", "offset")]
    series, source, model = texts
    ts, start, step, first, last = ints
    values = {name: _values(table, name, targets) for name in VALUES}
    batch = ForecastBatch(series, ts, start, step, values["forecast"], source, model, targets or ("value",))
    bounds = {"lower": values["lower"], "upper": values["upper"]} if values["lower"] is not None else {}
    if "coverage" in table.fields and table.rows:
        bounds["coverage"] = float(table.numbers("coverage").values[0])
    if "anomaly" in table.fields:
        scores = table.numbers("anomaly")
        null = np.zeros(table.rows, bool) if scores.null is None else scores.null
        pairs = zip(scores.values.tolist(), null.tolist(), strict=True)
        bounds["anomaly"] = [None if none else score for score, none in pairs]
    return Made(replace(batch, **bounds), first, last)


def _values(table: Table, name: str, targets: Sequence[str]) -> Any:
    """The values (B,K,O) of a forecast or of its bounds."""
    columns = [f"{name}.{target}" for target in targets] or [name]
    if not all(column in table.fields for column in columns):
        if name == "forecast":
            raise InvalidEvent("schema", "it has no column forecast: it is not a service's")
        return None
    return np.stack([table.lists(column).values for column in columns], axis=-1)


def each_forecast(records: Iterable[Record]) -> Iterator[Record]:
    """Records of an output topic, each forecast of a columnar one as a record of its own, as it would be in JSON.

    Those that are no columnar message, or that can't be read, are given as they are.
    """
    for record in records:
        if not is_columnar(record.value):
            yield record
            continue
        try:
            made = decode_columns(record.value or b"")
        except InvalidEvent:
            yield record
        else:
            yield from _rows(record, made)


def _rows(record: Record, made: Made) -> Iterator[StoredRecord]:
    common = [(name, text.encode()) for name, text in read_headers(record.headers).items() if name != OFFSETS]
    offsets = zip(made.first.tolist(), made.last.tolist(), strict=True)
    place = record.topic, record.partition, record.offset, record.timestamp
    for series, value, (first, last) in zip(made.batch.series, encode_forecasts(made.batch), offsets, strict=True):
        yield StoredRecord(*place, series.encode(), value, [*common, (OFFSETS, b"%d-%d" % (first, last))])
