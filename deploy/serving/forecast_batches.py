"""From a model's outputs to columnar forecasts and labels.

B windows or texts   S steps of a window   K horizon steps   O targets   C labels
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from model.card import Card
from model.evaluation.baselines import seasonal_naive
from model.seasons import shortest_lag
from pipeline.formats.forecasts import ForecastBatch
from pipeline.formats.labels import LabelBatch
from pipeline.windows.batch import Windows
from pipeline.windows.tokens import Texts

Floats = npt.NDArray[np.floating]


def forecast_batches(windows: Windows, outputs: Iterable[Floats], card: Card, model: str) -> Iterator[ForecastBatch]:
    """The forecasts for B windows, in order; `outputs` are chunks (b,K,O) that add up to B rows.

    A window that is not full yet gets a seasonal naive forecast instead. Raises ValueError if the rows don't add up.
    """
    done = 0
    for values in outputs:
        part = windows.part(done, done + len(values))
        done += len(values)
        if len(part) == len(values):
            yield _forecast_batch(part, values, card, model)
    if done != len(windows):
        raise ValueError(f"{done} forecasts for {len(windows)} windows")


def _forecast_batch(windows: Windows, values: Floats, card: Card, model: str) -> ForecastBatch:
    source, models = ["model"] * len(windows), [model] * len(windows)
    (short,) = np.nonzero(windows.length < windows.x.shape[1])
    if len(short):
        lag = shortest_lag(card.input.freq)
        naive = _naive(windows, short, card, lag)
        values = values.astype(np.result_type(values, naive))
        values[short] = naive
        for row in short.tolist():
            source[row], models[row] = "naive", f"naive/{lag}"
    columns = (windows.series, windows.ts, windows.start, windows.spacing)
    return ForecastBatch(*columns, values, source, models, card.output.targets)


def _naive(windows: Windows, rows: npt.NDArray[np.int64], card: Card, lag: int) -> Floats:
    """Seasonal naive forecasts (N,K,O) for the N windows at `rows`, from the steps that they have.

    They are float32 beside a model of an earlier version, whose forecasts are too.
    """
    steps = windows.x.shape[1]
    ends = np.arange(1, len(rows) + 1) * steps - 1
    first = ends + 1 - windows.length[rows]
    values = windows.x[rows][:, :, card.target_columns].reshape(-1, len(card.output.targets))
    naive = seasonal_naive(values, ends, first, card.output.horizon, lag)
    return naive if card.floors else naive.astype(np.float32)


def label_batches(texts: Texts, outputs: Iterable[Floats], labels: Sequence[str], model: str) -> Iterator[LabelBatch]:
    """The most probable labels for B texts, in order; `outputs` are chunks of probabilities (b,C), B rows in all.

    Raises ValueError if the rows don't add up.
    """
    done = 0
    for probabilities in outputs:
        ids = texts.ids[done : done + len(probabilities)]
        done += len(probabilities)
        best = [labels[column] for column in probabilities.argmax(axis=1).tolist()]
        if len(ids) == len(best):
            yield LabelBatch(ids, best, probabilities.max(axis=1).tolist(), model)
    if done != len(texts):
        raise ValueError(f"{done} labels for {len(texts)} texts")
