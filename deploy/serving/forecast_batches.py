"""From a model's outputs to columnar forecasts and labels.

B windows or texts   S steps of a window   K horizon steps   O targets   C labels
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.card import Card
from model.evaluation.baselines import naive_of_windows
from pipeline.formats.forecasts import ForecastBatch
from pipeline.formats.labels import LabelBatch
from pipeline.windows.batch import Windows
from pipeline.windows.tokens import Texts

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Faults:
    """Rows of a batch for which the model had no usable output."""

    failed: dict[int, str] = field(default_factory=dict)
    """Rows without an output, and why: inference raised, or a label has no finite probability."""
    not_finite: list[int] = field(default_factory=list)
    """Rows whose forecast was not finite, and is a naive one instead."""

    def __len__(self) -> int:
        return len(self.failed) + len(self.not_finite)


def forecast_batches(
    windows: Windows, outputs: Iterable[Floats], card: Card, model: str, faults: Faults | None = None
) -> Iterator[ForecastBatch]:
    """The forecasts for B windows, in order; `outputs` are chunks (b,K,O) that add up to B rows.

    A window that is not full yet, or whose output is not finite, gets a seasonal naive forecast instead; the latter are
    noted in `faults`. Raises ValueError if the rows don't add up.
    """
    done, faults = 0, Faults() if faults is None else faults
    for values in outputs:
        part = windows.part(done, done + len(values))
        if len(part) == len(values):
            yield _forecast_batch(part, values, card, model, faults, done)
        done += len(values)
    if done != len(windows):
        raise ValueError(f"{done} forecasts for {len(windows)} windows")


def _forecast_batch(
    windows: Windows, values: Floats, card: Card, model: str, faults: Faults, first: int
) -> ForecastBatch:
    source, models = ["model"] * len(windows), [model] * len(windows)
    naive = windows.length < windows.x.shape[1]
    if not np.isfinite(values).all():
        bad = ~naive & ~np.isfinite(values).all(axis=(1, 2))
        for row in np.flatnonzero(naive).tolist():  # it needs no output
            faults.failed.pop(first + row, None)
        places = (np.flatnonzero(bad) + first).tolist()
        faults.not_finite.extend(place for place in places if place not in faults.failed)
        naive |= bad
    rows = np.flatnonzero(naive)
    if len(rows):
        lag = card.input.season_lag
        forecasts = _naive(windows, rows, card, lag)
        values = values.astype(np.result_type(values, forecasts))
        values[rows] = forecasts
        for row in rows[~np.isfinite(values[rows]).all(axis=(1, 2))].tolist():
            faults.failed[first + row] = "neither its forecast nor the naive one is finite"
        for row in rows.tolist():
            source[row], models[row] = "naive", f"naive/{lag}"
    columns = (windows.series, windows.ts, windows.start, windows.spacing)
    return ForecastBatch(*columns, values, source, models, card.output.targets)


def _naive(windows: Windows, rows: npt.NDArray[np.int64], card: Card, lag: int) -> Floats:
    """Seasonal naive forecasts (N,K,O) for the N windows at `rows`, from the steps that they have.

    They are float32 beside a model of an earlier version, whose forecasts are too.
    """
    horizon, columns = card.output.horizon, card.target_columns
    naive = naive_of_windows(windows.x[rows], windows.length[rows], columns, horizon, lag)
    return naive if card.floors else naive.astype(np.float32)


def label_batches(
    texts: Texts, outputs: Iterable[Floats], labels: Sequence[str], model: str, faults: Faults | None = None
) -> Iterator[LabelBatch]:
    """The most probable labels for B texts, in order; `outputs` are chunks of probabilities (b,C), B rows in all.

    A text without finite probabilities is noted in `faults`. Raises ValueError if the rows don't add up.
    """
    done = 0
    for probabilities in outputs:
        if faults is not None and not np.isfinite(probabilities).all():
            for row in np.flatnonzero(~np.isfinite(probabilities).all(axis=1)).tolist():
                faults.failed.setdefault(done + row, "its output is not finite")
        ids = texts.ids[done : done + len(probabilities)]
        done += len(probabilities)
        best = [labels[column] for column in probabilities.argmax(axis=1).tolist()]
        if len(ids) == len(best):
            yield LabelBatch(ids, best, probabilities.max(axis=1).tolist(), model)
    if done != len(texts):
        raise ValueError(f"{done} labels for {len(texts)} texts")
