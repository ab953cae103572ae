"""A trained model's file in lower precision: registered so where its validation error allows it, which is said."""

import json
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from deploy.models.loading import load_onnx
from deploy.settings.locations import default_tracking
from deploy.settings.serve import window_config
from deploy.training import precision
from deploy.training.precision import lowering
from model.artifacts.export import CARD_FILE, save
from model.artifacts.registry import Registry
from model.artifacts.versions import MODEL_FILE
from model.card import Card, InputSpec, OutputSpec
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import FittedForecaster, fit, window_inputs
from pipeline.windows.sliding import SlidingWindows, sliding_windows

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HOUR, START = 3_600_000, 1_700_000_000_000 // 3_600_000 * 3_600_000


class Fitted(NamedTuple):
    """A small network, and what it was fitted to."""

    forecaster: FittedForecaster
    data: SlidingWindows


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    inputs, outputs = InputSpec(seq_len=24, freq="1h"), OutputSpec(horizon=6)
    values = np.sin(np.arange(400) * np.pi / 12) + np.random.default_rng(0).normal(0, 0.1, 400)
    times = START + HOUR * np.arange(400)
    data = sliding_windows(["a"] * 400, times, values[:, None], window_config(inputs))
    return Fitted(fit(data, inputs, outputs, ForecastConfig(arch="segment", hidden=8, epochs=2), "m"), data)


@pytest.fixture(scope="module")
def saved(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (forecaster, data), folder = fitted, tmp_path_factory.mktemp("saved")
    save(forecaster.model, forecaster.card, folder, window_inputs(data, forecaster.card, forecaster.split.validation))
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_file_as_good_takes_the_place_of_the_float32_one_and_its_card_says_so(
    fitted: Fitted, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        card = lowering(*fitted, "int8")(folder)
    assert card.precision == "int8"
    assert card.metrics["precision_loss"] <= precision.TOLERANCE
    assert load_onnx(folder / MODEL_FILE, "m", "cpu").card == card
    assert json.loads((folder / CARD_FILE).read_text())["precision"] == "int8"
    assert "int8: validation error" in caplog.text


def test_a_file_whose_error_grows_too_much_is_refused_and_the_float32_one_stays(
    fitted: Fitted, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_onnx(folder / MODEL_FILE, "m", "cpu")
    monkeypatch.setattr(precision, "TOLERANCE", -1.0)
    assert lowering(*fitted, "int8")(folder) == fitted.forecaster.card
    after = load_onnx(folder / MODEL_FILE, "m", "cpu")
    assert after.card == before.card
    x = {"x": np.random.default_rng(1).normal(size=(8, 24, 1)).astype(np.float32)}
    np.testing.assert_array_equal(after.session.run(None, x)[0], before.session.run(None, x)[0])
    assert "precision: int8 is refused" in caplog.text


@pytest.mark.slow
def test_train_registers_int8_and_a_retraining_asks_for_it(tidecast: Run, tmp_path: Path) -> None:
    values = np.sin(np.arange(1400) * np.pi / 12) + np.random.default_rng(0).normal(0, 0.1, 1400)
    frame = pl.DataFrame({"ts": START + HOUR * np.arange(1400), "value": values})
    frame[:600].write_csv("first.csv")
    frame.write_csv("all.csv")
    training = ("--name", "m", "--arch", "segment", "--hidden", "8", "--epochs", "2", "--json")
    first = tidecast("train", *training, "--data", "first.csv", "--precision", "int8")
    assert json.loads(first.stdout.splitlines()[-1])["precision"] == "int8", first.stderr
    assert tidecast("retrain", *training, "--data", "all.csv").returncode == 0
    registry = Registry(default_tracking())
    predictor = load_onnx(registry.download(registry.resolve("m/1"), tmp_path), "m", "cpu")
    assert isinstance(predictor.card, Card)
    assert predictor.card.precision == "int8"
    assert registry.resolve("m/2").tags["precision"] == "int8"
