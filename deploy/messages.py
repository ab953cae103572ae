"""The messages a service writes: forecasts, labels, and dead letters for records that are neither events nor texts."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from model.baselines import seasonal_naive
from model.seasons import shortest_lag
from model.spec import Card
from pipeline.events import MAX_VALUE_BYTES, InvalidEvent
from pipeline.log import Cut, Record
from pipeline.text import Texts
from pipeline.windows import Windows

MODEL, VERSION, PROVIDER = "tidecast.model", "tidecast.version", "tidecast.provider"
"""Headers of an answer: the sha256 of the file that made it, its label, and what of onnxruntime ran it."""
INPUT, OFFSETS = "tidecast.input", "tidecast.offsets"
"""Headers of an answer: TOPIC/PARTITION of what it was made of, and FIRST-LAST, the offsets between which that lies."""


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


_encode = msgspec.json.Encoder().encode


def encode_forecasts(
    windows: Windows, parts: Iterable[npt.NDArray[np.float32]], card: Card, model: str
) -> Iterator[bytes]:
    """Each window's forecast as JSON bytes, in the windows' order; `parts` are (b,K,O), together as many as windows.

    What is made of a window that is not full yet gives way to a seasonal naive forecast.
    """
    targets = card.output.targets
    rows = (row for part in parts for row in _rows(part, targets))
    times = (windows.ts.tolist(), windows.start.tolist(), windows.spacing.tolist())
    naive, lag = _naive(windows, card), shortest_lag(card.input.freq)
    for place, (series, ts, start, step, row) in enumerate(zip(windows.series, *times, rows, strict=True)):
        if place in naive:
            yield _encode(Forecast(series, ts, start, step, naive[place], "naive", f"naive/{lag}"))
        else:
            yield _encode(Forecast(series, ts, start, step, row, "model", model))


def _naive(windows: Windows, card: Card) -> dict[int, list[float] | dict[str, list[float]]]:
    """By their place, the naive forecasts of windows that are not full."""
    steps = windows.x.shape[1]
    (short,) = np.nonzero(windows.length < steps)
    if not len(short):
        return {}
    ends = np.arange(1, len(short) + 1) * steps - 1
    first = ends + 1 - windows.length[short]
    values = windows.x[short][:, :, card.target_columns].reshape(-1, len(card.output.targets))
    made = seasonal_naive(values, ends, first, card.output.horizon, shortest_lag(card.input.freq))
    return dict(zip(short.tolist(), _rows(np.asarray(made, np.float32), card.output.targets), strict=True))


def _rows(values: npt.NDArray[np.float32], targets: Sequence[str]) -> Sequence[list[float] | dict[str, list[float]]]:
    if len(targets) == 1:
        rows: list[list[float]] = values[:, :, 0].tolist()
        return rows
    return [dict(zip(targets, row.T.tolist(), strict=True)) for row in values]


class Label(msgspec.Struct, gc=False):
    """One text's likeliest label and its probability; `id` as the text's own, `model` which version said so."""

    id: str | int
    label: str
    probability: float
    model: str


def encode_labels(
    texts: Texts, parts: Iterable[npt.NDArray[np.float32]], labels: Sequence[str], model: str
) -> Iterator[bytes]:
    """Each text's label as JSON bytes, in the texts' order; `parts` are (b,C), together as many as texts."""
    best = ((labels[row.argmax()], float(row.max())) for part in parts for row in part)
    for name, (label, probability) in zip(texts.ids, best, strict=True):
        yield _encode(Label(name, label, probability, model))


class DeadLetter(NamedTuple):
    """What is kept of a record that is no event."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def dead_letter(record: Record, error: InvalidEvent) -> DeadLetter:
    """The first 64 KiB of a record's key and of its value, its headers, and after them where it was and why.

    Headers longer than that together are left out, so that a letter always fits where its record did.
    """
    value = record.value or b""
    headers = [(name, content or b"") for name, content in record.headers]  # Kafka has None too, its client refuses it
    size = sum(len(name.encode()) + len(content) for name, content in headers)
    about = {
        "reason": error.reason,
        "detail": error.detail,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "sha256": value.sha256 if isinstance(value, Cut) else hashlib.sha256(value).hexdigest(),
    }
    headers = headers if size <= MAX_VALUE_BYTES else [("tidecast.headers", b"left out")]
    headers += [(f"tidecast.{name}", str(fact).encode()) for name, fact in about.items()]
    return DeadLetter(record.key and record.key[:MAX_VALUE_BYTES], value[:MAX_VALUE_BYTES], headers)
