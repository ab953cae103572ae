"""Forecasts: a columnar batch of them as a value, and their messages.

B forecasts   K horizon steps   O targets
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class ForecastBatch:
    """B forecasts, column by column, between predicting and encoding. Times are epoch milliseconds."""

    series: Sequence[str]
    """(B,)."""
    ts: Ints
    """(B,): each window's last point."""
    start: Ints
    """(B,): the time of the first step that is forecast."""
    step: Ints
    """(B,): how long that step is, milliseconds."""
    forecast: Floats
    """(B,K,O), raw units."""
    source: Sequence[str]
    """(B,): what made each: `model`, or `naive`."""
    model: Sequence[str]
    """(B,): which version of that."""
    targets: tuple[str, ...]
    """The O names."""

    def __len__(self) -> int:
        return len(self.series)


class Forecast(msgspec.Struct, gc=False):
    """One forecast. Times are epoch milliseconds; `forecast[i]` is for the time `start + i * step`.

    On a calendar's grid it is for the i-th month (or year) from `start`, and `step` is the first one's length.

    `ts` is the window's last point, `forecast` K values in raw units (a mapping target -> K values if there are
    several targets), `source` what made it (`model`, or `naive` for a series that is new), and `model` which version of
    that (NAME/VERSION; naive/48 repeats what was 48 steps before, or the last value where the series is shorter).
    """

    series: str
    ts: int
    start: int
    step: int
    forecast: list[float] | dict[str, list[float]]
    source: str
    model: str


def encode_forecasts(batch: ForecastBatch) -> Iterator[bytes]:
    """Each forecast as JSON bytes, in order."""
    times = (batch.ts.tolist(), batch.start.tolist(), batch.step.tolist())
    rows = _rows(batch.forecast, batch.targets)
    return map(_encode, map(Forecast, batch.series, *times, rows, batch.source, batch.model))


def _rows(values: npt.NDArray[np.float32], targets: Sequence[str]) -> Sequence[list[float] | dict[str, list[float]]]:
    if len(targets) == 1:
        rows: list[list[float]] = values[:, :, 0].tolist()
        return rows
    return [dict(zip(targets, row.T.tolist(), strict=True)) for row in values]
