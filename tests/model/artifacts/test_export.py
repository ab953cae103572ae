from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file

from deploy.models.loading import load_onnx
from model.artifacts.export import export, parity, save
from model.card import Card, InputSpec, OutputSpec, read_card
from model.networks.forecast import build_network
from model.training.forecast_config import ForecastConfig
from model.training.forecasting import FittedForecaster, fit, forecast, window_inputs
from tidecast.errors import ConfigError, ParityError

Exported = tuple[FittedForecaster, Path]


def test_exported_file_is_self_describing(exported: Exported) -> None:
    session = ort.InferenceSession(exported[1])
    assert read_card(session.get_modelmeta().custom_metadata_map["tidecast"]) == exported[0].card
    assert [(node.name, node.shape) for node in session.get_inputs()] == [("x", ["batch", 24, 1])]
    assert [(node.name, node.shape) for node in session.get_outputs()] == [("forecast", ["batch", 6, 1])]
    assert sorted(path.name for path in exported[1].parent.iterdir()) == [
        "card.json",
        "example.safetensors",
        "model.onnx",
        "weights.safetensors",
    ]


def test_exported_file_has_no_paths_of_the_machine(exported: Exported) -> None:
    assert b".py" not in exported[1].read_bytes()


def test_network_is_rebuilt_from_card_and_weights(exported: Exported, wave_data: Any) -> None:
    folder = exported[1].parent
    card = read_card((folder / "card.json").read_text())
    assert isinstance(card, Card)
    model = build_network(card).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    x = torch.from_numpy(wave_data.values[:24][None]).float()
    assert torch.equal(model(x), exported[0].model(x))


def test_export_matches_torch(exported: Exported) -> None:
    x = np.random.default_rng(0).normal(0, 1e4, (64, 24, 1)).astype(np.float32)
    assert parity(exported[0].model, exported[0].card, exported[1], {"x": x}) <= 1e-4


@pytest.mark.slow
def test_calendar_effects_are_learnt_and_exported(make_data: Any, tmp_path: Path) -> None:
    hours = np.arange(10 * 168)
    data = make_data(np.where(hours % 168 < 120, 100.0, 50.0) + np.random.default_rng(0).normal(0, 10, len(hours)))
    config = ForecastConfig(hidden=16, epochs=20, patience=20)
    fitted = fit(data, InputSpec(seq_len=24, freq="1h"), OutputSpec(horizon=24), config, "weekends")
    assert fitted.card.input.inputs == ("x", "step")
    assert fitted.card.metrics["validation_mse"] < fitted.card.metrics["naive_last_mse"] / 4
    ends = fitted.split.validation
    examples = dict(window_inputs(data, fitted.card, ends))
    path = save(fitted.model, fitted.card, tmp_path, examples)
    assert [node.name for node in ort.InferenceSession(path).get_inputs()] == ["x", "step"]
    given = ort.InferenceSession(path).run(None, examples)[0]
    np.testing.assert_allclose(given, forecast(fitted.model, data, ends), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("arch", [pytest.param("lstm", marks=pytest.mark.slow), "segment"])
def test_future_covariates_are_an_input_of_the_file(arch: Any, make_data: Any, tmp_path: Path) -> None:
    heat = np.random.default_rng(0).normal(300, 5, 400)
    data = make_data(np.stack([2 * heat, heat], axis=1))
    inputs = InputSpec(seq_len=24, freq="1h", features=("load", "heat"), known=("heat",))
    config = ForecastConfig(arch=arch, hidden=16, epochs=20)
    fitted = fit(data, inputs, OutputSpec(horizon=7, targets=("load",)), config, "heated")
    assert fitted.card.metrics["validation_mse"] < fitted.card.metrics["naive_day_mse"] / 2
    ends = fitted.split.validation
    examples = dict(window_inputs(data, fitted.card, ends))
    path = save(fitted.model, fitted.card, tmp_path, examples)
    given = ort.InferenceSession(path).run(None, examples)[0]
    np.testing.assert_allclose(given, forecast(fitted.model, data, ends), rtol=1e-4, atol=1e-2)
    with pytest.raises(ConfigError, match="the model needs future values of heat"):
        load_onnx(path, "heated/1", "cpu")


def test_parity_fails_for_other_weights(exported: Exported, tmp_path: Path) -> None:
    changed = onnx.load(exported[1])
    for tensor in changed.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name)
            )
    onnx.save(changed, tmp_path / "changed.onnx")
    rising = {"x": np.ones((1, 24, 1), np.float32).cumsum(axis=1)}
    with pytest.raises(ParityError, match="batch size 1 "):
        parity(exported[0].model, exported[0].card, tmp_path / "changed.onnx", rising)


def test_forecast_is_bitwise_independent_of_the_batch(exported: Exported) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(exported[1], options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(0, 1e3, (512, 24, 1)).astype(np.float32)
    (whole,) = session.run(None, {"x": x})
    for size in range(4, 512):
        (part,) = session.run(None, {"x": x[-size:]})
        assert part.tobytes() == whole[-size:].tobytes(), size


@pytest.mark.slow
def test_export_prints_nothing(exported: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(exported[0].model, exported[0].card, tmp_path / "again.onnx")
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "again.onnx").read_bytes() == exported[1].read_bytes()
