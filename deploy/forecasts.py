"""The messages a service writes: forecasts, and dead letters for records that are no events."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.events import MAX_VALUE_BYTES, InvalidEvent
from pipeline.log import Record
from pipeline.windows import Windows


class Forecast(msgspec.Struct, gc=False):
    """One forecast. Times are epoch milliseconds; `forecast[i]` is for the time `start + i * step`.

    `ts` is the window's last point, `forecast` K values in raw units (a mapping target -> K values if there are
    several targets), `source` what made it, and `model` which version of that.
    """

    series: str
    ts: int
    start: int
    step: int
    forecast: list[float] | dict[str, list[float]]
    source: str
    model: str


_encode = msgspec.json.Encoder().encode


def encode_forecasts(
    windows: Windows, parts: Iterable[npt.NDArray[np.float32]], targets: Sequence[str], model: str
) -> Iterator[bytes]:
    """Each window's forecast as JSON bytes, in the windows' order; `parts` are (b,K,O), together as many as windows."""
    rows = (row for part in parts for row in _rows(part, targets))
    times, spacing = windows.ts.tolist(), windows.spacing.tolist()
    for series, ts, step, row in zip(windows.series, times, spacing, rows, strict=True):
        yield _encode(Forecast(series, ts, ts + step, step, row, "model", model))


def _rows(values: npt.NDArray[np.float32], targets: Sequence[str]) -> Sequence[list[float] | dict[str, list[float]]]:
    if len(targets) == 1:
        rows: list[list[float]] = values[:, :, 0].tolist()
        return rows
    return [dict(zip(targets, row.T.tolist(), strict=True)) for row in values]


def dead_letter(record: Record, error: InvalidEvent) -> tuple[bytes, list[tuple[str, bytes]]]:
    """What is kept of a record that is no event: its first 64 KiB, and headers that say where it was and why."""
    value = record.value or b""
    about = {
        "reason": error.reason,
        "detail": error.detail,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "sha256": hashlib.sha256(value).hexdigest(),
    }
    headers = [(f"tidecast.{name}", str(fact).encode()) for name, fact in about.items()]
    return value[:MAX_VALUE_BYTES], [*headers, *record.headers]
