"""The codec of forecasts: a columnar batch of them, and their messages.

B forecasts   K horizon steps   O targets
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class ForecastBatch:
    """B forecasts in columns, as predicted and to be encoded. Times are epoch milliseconds."""

    series: Sequence[str]
    """(B,)."""
    ts: Ints
    """(B,): the time of each window's last step."""
    start: Ints
    """(B,): the time of the first step that is forecast."""
    step: Ints
    """(B,): the length of that step, milliseconds."""
    forecast: Floats
    """(B,K,O), in the units of the events."""
    source: Sequence[str]
    """(B,): which method predicted each: `model`, or `naive`."""
    model: Sequence[str]
    """(B,): which version of it."""
    targets: tuple[str, ...]
    """The names of the O targets."""

    def __len__(self) -> int:
        return len(self.series)


class Forecast(msgspec.Struct, gc=False):
    """One forecast. Times are epoch milliseconds; `forecast[i]` is for the time `start + i * step`.

    On a calendar grid it is for the i-th month (or year) from `start`, on business days for the i-th of those; `step`
    is the first one's length.

    `ts` is the time of the window's last step, `forecast` K values in the units of the events (a mapping target -> K
    values if there are several targets), `source` the method (`model`, or `naive` for a new series), and `model` its
    version (NAME/VERSION; naive/48 repeats the value 48 steps before, or the last one if the series is shorter).
    """

    series: str
    ts: int
    start: int
    step: int
    forecast: list[float] | dict[str, list[float]]
    source: str
    model: str


def encode_forecasts(batch: ForecastBatch) -> Iterator[bytes]:
    """Encode each forecast as JSON, in order."""
    times = (batch.ts.tolist(), batch.start.tolist(), batch.step.tolist())
    rows = _rows(batch.forecast, batch.targets)
    return map(_encode, map(Forecast, batch.series, *times, rows, batch.source, batch.model))


def _rows(values: Floats, targets: Sequence[str]) -> Sequence[list[float] | dict[str, list[float]]]:
    if len(targets) == 1:
        rows: list[list[float]] = values[:, :, 0].tolist()
        return rows
    return [dict(zip(targets, row.T.tolist(), strict=True)) for row in values]
