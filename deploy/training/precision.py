"""A trained forecaster's file in lower precision, if it is as good on its validation windows."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from model.artifacts.export import save_lowered, session
from model.artifacts.precision import lowered
from model.artifacts.versions import MODEL_FILE
from model.card import Card, Precision
from model.evaluation.metrics import mse, series_scale
from model.evaluation.splits import sample, targets
from model.levels import Levels
from model.training.forecasting import FittedForecaster, lowered_windows, window_inputs
from model.windows import Rows, WindowData
from tidecast.errors import ConfigError

logger = logging.getLogger(__name__)

TOLERANCE = 0.01
"""By which share of it the validation error may grow."""
CALIBRATED = 2048
"""Training windows from which the ranges of 8 bits are taken."""
BATCH = 256
"""Windows in a call, as a service has them at most."""
Lower = Callable[[Path], Card]
"""Replaces the file in a folder by one in lower precision; the card of what is there then."""


def lowering(fitted: FittedForecaster, data: WindowData, precision: Precision) -> Lower:
    """Lowers a fitted forecaster's file to this precision, and keeps it in float32 where that costs too much.

    Which it is is logged, with the change of its validation error and its speed on this machine.
    """

    def lower(folder: Path) -> Card:
        path, card = folder / MODEL_FILE, fitted.card
        before = path.read_bytes()
        try:
            after = lowered(before, precision, window_inputs(data, card, _some(fitted.split.train, CALIBRATED)))
        except ConfigError as error:
            logger.warning(f"{error}: registered in float32")
            return card
        save_lowered(after, msgspec.structs.replace(card, precision=precision), folder)
        (old, old_s), (new, new_s) = (_validated(each, fitted, data) for each in (before, after))
        loss = new / old - 1 if old else float(new > old)
        if not loss <= TOLERANCE:
            save_lowered(before, card, folder)
            why = f"its validation error is {loss:.1%} higher, and {TOLERANCE:.0%} is the most"
            logger.warning(f"precision: {precision} is refused, {why}: registered in float32")
            return card
        card = msgspec.structs.replace(card, precision=precision, metrics={**card.metrics, "precision_loss": loss})
        save_lowered(after, card, folder)
        speed = f"{old_s / new_s:.2f} times as fast on this CPU"
        logger.info(f"{precision}: validation error {loss:+.2%}, {speed}, {len(after) / len(before):.0%} of the size")
        return card

    return lower


def _some(ends: Rows, count: int) -> Rows:
    return ends[:: -(-len(ends) // count)]


def _validated(model: bytes, fitted: FittedForecaster, data: WindowData) -> tuple[float, float]:
    """A file's mean squared error on a sample of the validation windows, in z-scores, and the seconds it took."""
    card, run, levels = fitted.card, session(model), Levels.of(fitted.card)
    ends, forecasts, seconds = sample(fitted.split.validation), [], 0.0
    for start in range(0, len(ends), BATCH):
        inputs, shifts = lowered_windows(data, card, ends[start : start + BATCH])
        began = time.perf_counter()
        (values,) = run.run(None, inputs)
        seconds += time.perf_counter() - began
        forecasts.append(levels.raised(values, shifts))
    actual, observed = targets(data, ends, card.output.horizon, card.target_columns)
    scale = series_scale(data, card.target_columns, fitted.split.cuts.validation)[data.series[ends], None]
    return mse(np.concatenate(forecasts), actual, scale, observed), seconds
