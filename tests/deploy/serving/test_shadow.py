"""A shadow that fails does not fail what serves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from deploy.serving.model_loading import load_onnx
from deploy.serving.shadow import Shadow
from deploy.settings.serve import ServeConfig, window_config
from model.card import Card
from pipeline.formats.events import Event
from pipeline.windows.batch import Windows
from pipeline.windows.store import WindowStore


class Brings:
    """A follower that has brought these."""

    def __init__(self, *models: Any) -> None:
        self.models = list(models)

    def take(self) -> Any:
        return self.models.pop() if self.models else None


def test_a_shadow_that_fails_ends_alone(own_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictor = load_onnx(own_model, "tiny/2", "cpu")
    assert isinstance(predictor.card, Card)
    ready = window(predictor.card)
    longer = msgspec.structs.replace(predictor.card, output=msgspec.structs.replace(predictor.card.output, horizon=5))
    config = ServeConfig(topic="t", group="g", instance="i", start="earliest", shadow_topic="s")
    updater: Any = Brings(predictor, replace(predictor, card=longer))
    shadow = Shadow(updater, config)
    assert shadow.answers(ready) == [], "there is none yet"
    shadow.follow()
    assert shadow.answers(ready) == []
    assert "tiny/2 is no shadow any more: " in caplog.messages[-1]
    shadow.follow()
    (answer,) = shadow.answers(ready)
    assert len(msgspec.json.decode(answer)["forecast"]) == 4


def window(card: Card) -> Windows:
    store = WindowStore(window_config(card.input))
    for hour in range(12):
        store.push(Event("a", 1_700_002_800_000 + hour * 3_600_000, (float(np.sin(hour)),)), hour)
    return store.take()
