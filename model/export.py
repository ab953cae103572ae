"""torch to one self-describing ONNX file, and the proof that both forecast the same.

The file holds network, weights, normalisation and card: it is all that serving needs.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from safetensors.torch import save_file

from model.lstm import Forecaster
from model.spec import MODEL_FILE, Card, ShapeError

OPSET = 20
TOLERANCE = 1e-4
"""The greatest difference between torch and onnxruntime, relative to the greatest forecast."""
PARITY_BATCHES = (1, 7, 64)


class ParityError(Exception):
    """The ONNX file forecasts something else than the network it was made from."""


def save(model: Forecaster, card: Card, folder: Path, example: npt.NDArray[np.float32]) -> Path:
    """Writes model.onnx, weights.safetensors and card.json into a folder, and checks the ONNX file.

    `example` (N,S,F) are windows to compare on, raw units. The weights and the card make the network again (for a warm
    start), the ONNX file alone serves it: its path is returned. Raises ParityError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    export(model, card, path)
    parity(model, path, example)
    save_file(model.state_dict(), folder / "weights.safetensors")
    (folder / "card.json").write_bytes(msgspec.json.format(card.to_json().encode(), indent=2))
    return path


def export(model: Forecaster, card: Card, path: Path) -> None:
    """Writes the model, in evaluation mode, as one ONNX file with its card: x (B,S,F) -> forecast (B,K,O), any B."""
    # A batch of two in the example: one would be taken for a constant.
    example = torch.zeros(2, card.input.seq_len, len(card.input.features))
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["forecast"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # it holds source lines and paths of the machine that exports
    program.model.metadata_props["tidecast"] = card.to_json()
    program.save(path, external_data=False)
    _check(session(path), card)


def session(path: Path) -> ort.InferenceSession:
    """An onnxruntime session on one CPU thread, as serving runs it: its bits don't depend on the batch (from 4 on)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def parity(model: Forecaster, path: Path, windows: npt.NDArray[np.float32]) -> float:
    """Compares torch with the file on windows (N,S,F), repeated to batches of 1, 7 and 64; the greatest difference.

    The difference is relative to the greatest forecast of its batch. Raises ParityError where it passes 1e-4.
    """
    run, worst = session(path), 0.0
    for size in PARITY_BATCHES:
        x = windows[np.arange(size) % len(windows)]
        with torch.inference_mode():
            expected = model.eval()(torch.from_numpy(x)).numpy()
        (given,) = run.run(None, {"x": x})
        difference = float(np.abs(given - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
        if not difference <= TOLERANCE:
            raise ParityError(f"{path}: at batch {size} torch and onnxruntime differ by {difference:.1e}, relative")
        worst = max(worst, difference)
    return worst


def _check(run: ort.InferenceSession, card: Card) -> None:
    expected = {
        "x": [card.input.seq_len, len(card.input.features)],
        "forecast": [card.output.horizon, len(card.output.targets)],
    }
    given = {node.name: node.shape for node in (*run.get_inputs(), *run.get_outputs())}
    if {name: shape[1:] for name, shape in given.items()} != expected or isinstance(given["x"][0], int):
        raise ShapeError(f"the exported file has {given}, its card says {expected} for any batch")


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter warns about its own insides; none of it is for people who train a model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
