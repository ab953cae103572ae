"""The codec of forecasts: a columnar batch of them, and their messages.

B forecasts   K horizon steps   O targets
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

AT_ONCE = 256
"""Forecasts whose numbers are written in one call: the text of more would be in memory that is mapped for it alone."""

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
    coverage: float | None = None
    """The share of actual values that intervals are to contain; None: there are no intervals."""
    lower: Floats | None = None
    """(B,K,O): the intervals' lower bounds."""
    upper: Floats | None = None
    """(B,K,O): the intervals' upper bounds."""
    anomaly: Sequence[float | None] | None = None
    """(B,): how the newest value fits what had been forecast for it; None: it is not known."""

    def __len__(self) -> int:
        return len(self.series)


Rows = list[float] | dict[str, list[float]]
"""K values, or a mapping target -> K values if there are several targets."""


class Forecast(msgspec.Struct, gc=False, omit_defaults=True):
    """One forecast. Times are epoch milliseconds; `forecast[i]` is for the time `start + i * step`.

    On a calendar grid it is for the i-th month (or year) from `start`, on business days for the i-th of those; `step`
    is the first one's length.

    `ts` is the time of the window's last step, `forecast` K values in the units of the events (a mapping target -> K
    values if there are several targets), `source` the method (`model`, or `naive` for a new series), and `model` its
    version (NAME/VERSION; naive/48 repeats the value 48 steps before, or the last one if the series is shorter).

    `lower` and `upper` bound what is to contain the actual value with a probability of `coverage`. `anomaly` says how
    the value at `ts` fits what had been forecast for it: 0 as expected, 1 at the bound, above is an anomaly. What is
    switched off, or not known yet, is left out.
    """

    series: str
    ts: int
    start: int
    step: int
    forecast: Rows
    source: str
    model: str
    coverage: float | None = None
    lower: Rows | None = None
    upper: Rows | None = None
    anomaly: float | None = None


def as_array(rows: Rows) -> Reals:
    """The values (K,O) of a forecast, or of its bounds."""
    return np.array([rows] if isinstance(rows, list) else list(rows.values()), np.float64).T


def encode_forecasts(batch: ForecastBatch) -> Iterator[bytes]:
    """Encode each forecast as JSON, in order."""
    times = (batch.ts.tolist(), batch.start.tolist(), batch.step.tolist())
    columns: list[Iterable[Any]] = [
        batch.series,
        *times,
        _rows(batch.forecast, batch.targets),
        batch.source,
        batch.model,
    ]
    if batch.lower is not None or batch.anomaly is not None:
        bounds = (_optional_rows(each, batch) for each in (batch.lower, batch.upper))
        columns += [repeat(batch.coverage), *bounds, repeat(None) if batch.anomaly is None else batch.anomaly]
    return map(_encode, map(Forecast, *columns))


def _optional_rows(values: Floats | None, batch: ForecastBatch) -> Iterable[Any]:
    return repeat(None) if values is None else _rows(values, batch.targets)


def _rows(values: Floats, targets: Sequence[str]) -> Iterable[Any]:
    """Each of B forecasts (K,O) as encoded Rows. Many are written in one call, in a third of the time of lists."""
    by_target = [list(map(msgspec.Raw, _lines(values[:, :, column]))) for column in range(len(targets))]
    if len(targets) == 1:
        return by_target[0]
    return [dict(zip(targets, rows, strict=True)) for rows in zip(*by_target, strict=True)]


def _lines(values: Floats) -> Iterator[bytes]:
    """The rows (K,) of an array (B,K), each as a list in JSON."""
    if not values.size:
        yield from [b"[]"] * len(values)
        return
    rows = np.ascontiguousarray(values, np.float64)
    for start in range(0, len(rows), AT_ONCE):
        written = orjson.dumps(rows[start : start + AT_ONCE], option=orjson.OPT_SERIALIZE_NUMPY)
        yield from written[1:-1].replace(b"],[", b"]\n[").split(b"\n")
