"""Model files: some written by hand, one exported from torch."""

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest
from models import exported
from sharing import Shared

from model.card import Card, InputSpec, OutputSpec, Setting

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'
WEIGHTS = ", ".join(str((-1) ** place * (place % 7) / 10) for place in range(12 * 4))
FOREIGN = f"""
foreign (float[batch, 12, 1] x) => (float[batch, 4] y) <int64[1] axes = {{2}}, float[12, 4] weights = {{{WEIGHTS}}}> {{
    flat = Squeeze (x, axes)
    y = MatMul (flat, weights)
}}"""


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph in ONNX's own notation to a file, with a card if one is given."""

    def write(graph: str, card: str | None = None) -> Path:
        model = onnx.parser.parse_model(HEADER + graph)
        if card is not None:
            onnx.helper.set_model_props(model, {"tidecast": card})
        path = tmp_path / "written.onnx"
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def foreign_model(onnx_file: Callable[..., Path]) -> Path:
    """A model nobody told about Tidecast: (batch, 12, 1) -> (batch, 4)."""
    return onnx_file(FOREIGN)


@pytest.fixture(scope="session")
def own_model(shared: Shared) -> Path:
    """An untrained LSTM of hourly steps, 12 back and 4 ahead."""
    inputs, outputs = InputSpec(seq_len=12, freq="1h"), OutputSpec(horizon=4)
    settings: dict[str, Setting] = {"hidden": 8, "layers": 1, "dropout": 0.0, "location": "last", "segment": 4}
    card = Card(name="tiny", input=inputs, output=outputs, arch="segment", hyperparameters=settings, trained_until=0)
    return exported(shared, card)
