"""What was forecast of a part of the input, as the output topic has it."""

from collections.abc import Container, Iterator, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from deploy.grading.state import Issued
from deploy.settings.serve import ServeConfig
from pipeline.formats.columnar.forecasts import decode_columns
from pipeline.formats.columnar.points import is_columnar
from pipeline.formats.forecasts import Forecast, as_array
from pipeline.formats.headers import INPUT, OFFSETS, VERSION, parse_origin, read_headers
from pipeline.log import Bounds, EventLog, Record, Undecodable

Ints = npt.NDArray[np.int64]
Identity = tuple[int, str, int]
"""Of a forecast: the offset of the record that completed the window, its series, and its ts."""
IssuedForecasts = dict[Identity, Issued]

_decode = msgspec.json.Decoder(Forecast).decode


def read_issued(
    log: EventLog,
    config: ServeConfig,
    starts: Mapping[int, int | None],
    ranges: Mapping[int, Bounds],
    steps: tuple[int, ...],
    models: Container[str],
) -> dict[int, IssuedForecasts]:
    """The forecasts of these ranges of the input, by partition; of two for one window the later.

    `starts` are the offsets from which the output's partitions have them; None: it is not known, and there are none.
    Those by other `models`, named without their versions, are another group's on the same topics. Raises NotAuthorized.
    """
    issued: dict[int, IssuedForecasts] = {number: {} for number in ranges}
    bounds, wanted = log.bounds(config.output), dict[int, Bounds]()
    for number in ranges:
        start, (first, end) = starts[number], bounds[number]
        if start is not None and start < end:
            wanted[number] = Bounds(max(start, first), end)
    at = np.array(steps) - 1
    for records in log.read_partitions(config.output, wanted):
        number = records[0].partition
        for record in records:
            read = _of_columns if is_columnar(record.value) else _of_json
            for identity, each, source in read(record, config.topic, ranges[number], at):
                if source != "model" or model_name(each.model) in models:
                    issued[number][identity] = each
    return issued


def _of_json(record: Record, topic: str, wanted: Bounds, at: Ints) -> Iterator[tuple[Identity, Issued, str]]:
    """The forecast of a record by its identity, for the steps `at`, and its source; none if it is of other input."""
    offset, version = _source(record, topic)
    if offset is not None and wanted.start <= offset < wanted.end:
        made = _decode(record.value or b"")
        values = as_array(made.forecast)[at].T
        yield (offset, made.series, made.ts), Issued(made.model, version, values), made.source


def _of_columns(record: Record, topic: str, wanted: Bounds, at: Ints) -> Iterator[tuple[Identity, Issued, str]]:
    """Those of a columnar record."""
    newest, version = _source(record, topic)
    if newest is not None and wanted.start <= newest:
        batch, _, last = decode_columns(record.value or b"")
        values = batch.forecast[:, at].transpose(0, 2, 1).astype(np.float64)
        columns = (last.tolist(), batch.series, batch.ts.tolist(), batch.model, batch.source, values)
        for completed, series, ts, model, source, forecast in zip(*columns, strict=True):
            if wanted.start <= completed < wanted.end:
                yield (completed, series, ts), Issued(model, version, forecast), source


def model_name(label: str) -> str:
    """A version's model: NAME of NAME/VERSION, or the file."""
    return label.rpartition("/")[0] or label


def _source(record: Record, topic: str) -> tuple[int | None, str]:
    """The offset of the input record that a forecast came of, None if it is no forecast of this partition's input; and
    the version that served.
    """
    if isinstance(record.headers, Undecodable):
        return None, ""
    headers = read_headers(record.headers)
    origin = parse_origin(headers.get(INPUT, ""), headers.get(OFFSETS, ""))
    return origin.last if origin and origin[:2] == (topic, record.partition) else None, headers.get(VERSION, "")
