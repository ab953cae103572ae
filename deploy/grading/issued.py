"""What was forecast of a part of the input, as the output topic has it."""

from collections.abc import Container, Mapping

import msgspec
import numpy as np

from deploy.grading.state import Issued
from deploy.settings.serve import ServeConfig
from pipeline.formats.columnar.forecasts import each_forecast
from pipeline.formats.forecasts import Forecast, as_array
from pipeline.formats.headers import INPUT, OFFSETS, VERSION, parse_origin, read_headers
from pipeline.log import Bounds, EventLog, Record, Undecodable

IssuedForecasts = dict[tuple[int, str, int], Issued]
"""By the offset of the record that completed the window, its series, and its ts."""

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
        for record in each_forecast(records):
            offset, version = _source(record, config.topic, number)
            if offset is not None and ranges[number].start <= offset < ranges[number].end:
                forecast = _decode(record.value or b"")
                if forecast.source == "model" and model_name(forecast.model) not in models:
                    continue
                identity = (offset, forecast.series, forecast.ts)
                issued[number][identity] = Issued(forecast.model, version, as_array(forecast.forecast)[at].T)
    return issued


def model_name(label: str) -> str:
    """A version's model: NAME of NAME/VERSION, or the file."""
    return label.rpartition("/")[0] or label


def _source(record: Record, topic: str, partition: int) -> tuple[int | None, str]:
    """The offset of the input record that a forecast came of, None if it is no forecast of this partition's input; and
    the version that served.
    """
    if isinstance(record.headers, Undecodable):
        return None, ""
    headers = read_headers(record.headers)
    origin = parse_origin(headers.get(INPUT, ""), headers.get(OFFSETS, ""))
    return origin.last if origin and origin[:2] == (topic, partition) else None, headers.get(VERSION, "")
