"""Model files in lower precision: as good, no new operators but one, and no forecast that depends on its batch."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from deploy.models.loading import load_bytes
from model.artifacts.allowlist import check_model
from model.artifacts.export import export, session
from model.artifacts.precision import lowered
from model.card import Card, InputSpec, OutputSpec, Precision
from model.networks.forecast import build_network
from model.training.forecast_config import ForecastConfig, forecast_card
from model.training.forecasting import FittedForecaster
from tidecast.errors import ConfigError

ROWS, SEQ_LEN, HORIZON = 40, 24, 6
PRECISIONS: tuple[Precision, ...] = ("int8", "fp16")
TYPES = {"int8": onnx.TensorProto.INT8, "fp16": onnx.TensorProto.FLOAT16}


def untrained(folder: Path, arch: Any, **settings: Any) -> bytes:
    config = ForecastConfig(arch=arch, hidden=16, **settings)
    card = forecast_card(InputSpec(seq_len=SEQ_LEN, freq="1h"), OutputSpec(horizon=HORIZON), config, arch)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        export(build_network(card), card, folder / "m.onnx")
    return (folder / "m.onnx").read_bytes()


def windows(seed: int = 0, rows: int = ROWS) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(100, 10, (rows, SEQ_LEN, 1)).astype(np.float32)


def forecasts(data: bytes, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    (found,) = session(data).run(None, {"x": x})
    return np.asarray(found)


@pytest.fixture
def file(exported: tuple[FittedForecaster, Path]) -> bytes:
    """A trained one, of each architecture."""
    return exported[1].read_bytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_forecasts_are_nearly_those_of_float32_from_a_file_that_may_be_loaded(
    file: bytes, precision: Precision
) -> None:
    changed = lowered(file, precision, {"x": windows(1)})
    check_model(changed)
    assert any(each.data_type == TYPES[precision] for each in onnx.ModelProto.FromString(changed).graph.initializer)
    expected = forecasts(file, windows())
    assert np.abs(forecasts(changed, windows()) - expected).max() < 0.02 * expected.std()
    assert load_bytes(changed, "m", "cpu").card == load_bytes(file, "m", "cpu").card


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_forecast_has_the_same_bits_whatever_else_is_in_its_batch(file: bytes, precision: Precision) -> None:
    changed, x = lowered(file, precision, {"x": windows(1)}), windows()
    x[3] *= 1e6
    x[4, ::2] *= -1e30
    x[5, 7] = np.nan
    x[6] = np.inf
    whole = forecasts(changed, x)
    for low, high in ((0, 4), (2, 9), (7, 11), (4, ROWS)):
        np.testing.assert_array_equal(forecasts(changed, x[low:high]), whole[low:high])
    assert np.isfinite(np.delete(whole, (4, 5, 6), axis=0)).all()
    assert np.isnan(whole[5]).all()


@pytest.mark.slow
def test_layers_above_each_other_have_their_own_ranges(tmp_path: Path) -> None:
    file = untrained(tmp_path, "lstm", layers=2)
    changed = lowered(file, "int8", {"x": windows(1)})
    expected, found = forecasts(file, windows()), forecasts(changed, windows())
    assert np.abs(found - expected).max() < 0.02 * expected.std()
    np.testing.assert_array_equal(forecasts(changed, windows()[3:9]), found[3:9])


def test_a_model_without_an_lstm_has_no_lower_precision(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the model has none"):
        lowered(untrained(tmp_path, "linear"), "int8", {"x": windows()})


def test_other_operators_of_that_domain_are_refused(file: bytes) -> None:
    model = onnx.ModelProto.FromString(lowered(file, "int8", {"x": windows()}))
    next(node for node in model.graph.node if node.domain).op_type = "Inverse"
    with pytest.raises(Exception, match=r"com\.microsoft\.Inverse"):
        check_model(model.SerializeToString())


def test_cards_say_nothing_of_precision_unless_it_is_lower() -> None:
    card = Card(name="m", arch="naive", input=InputSpec(seq_len=2), output=OutputSpec(horizon=1), trained_until=0)
    assert "precision" not in card.to_json()
