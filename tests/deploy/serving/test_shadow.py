"""A failing shadow does not stop the service."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from deploy.models.loading import load_onnx
from deploy.serving.shadow import Shadow
from deploy.settings.serve import ServeConfig, window_config
from model.card import Card
from pipeline.formats.events import Event
from pipeline.windows.batch import Windows
from pipeline.windows.streaming import WindowStore


class Updates:
    """A model updater that has these models ready."""

    def __init__(self, *models: Any) -> None:
        self.models = list(models)

    def take(self) -> Any:
        return self.models.pop() if self.models else None


def test_failing_shadow_is_dropped_and_the_next_model_works(own_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictor = load_onnx(own_model, "tiny/2", "cpu")
    assert isinstance(predictor.card, Card)
    pending = window(predictor.card)
    longer = msgspec.structs.replace(predictor.card, output=msgspec.structs.replace(predictor.card.output, horizon=5))
    config = ServeConfig(topic="t", group="g", instance="i", start="earliest", shadow_topic="s")
    updater: Any = Updates(predictor, replace(predictor, card=longer))
    shadow = Shadow(updater, config)
    assert shadow.predict(pending) == [], "no model yet"
    shadow.update()
    assert shadow.predict(pending) == []
    assert "shadow: tiny/2 failed and is dropped: " in caplog.messages[-1]
    assert shadow.counts == {"failed": 1}
    shadow.update()
    (forecasts,) = shadow.predict(pending)
    assert forecasts.forecast.shape == (1, 4, 1)


def window(card: Card) -> Windows:
    store = WindowStore(window_config(card.input))
    for hour in range(12):
        store.push(Event("a", 1_700_002_800_000 + hour * 3_600_000, (float(np.sin(hour)),)), hour)
    return store.take()
