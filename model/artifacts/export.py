"""Export of a torch model to a single self-describing ONNX file, with a parity check.

The file holds the network, weights, normalisation and card: all that serving needs.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
import torch._dynamo
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from safetensors.torch import save_file
from torch import Tensor, nn

from model.artifacts.versions import MODEL_FILE
from model.card import AnyCard, Array
from tidecast.errors import ParityError, ShapeError

OPSET = 20
TOLERANCE = 1e-4
"""The largest allowed difference of torch and onnxruntime, relative to an output's largest absolute value."""
PARITY_BATCHES = (1, 7, 64)
WEIGHTS_FILE, CARD_FILE, EXAMPLE_FILE = "weights.safetensors", "card.json", "example.safetensors"
"""Files beside the model file: weights and card to rebuild the network, and an example batch."""
_KEPT = 8
_ANY = {"batch": 2, "steps": 3}
"""Sizes of dynamic dimensions in the export example; the exporter would specialise a size of 1."""
_DTYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}

Examples = Mapping[str, npt.NDArray[Any]]
"""A model's named inputs for a few rows."""


def save(model: nn.Module, card: AnyCard, folder: Path, examples: Examples) -> Path:
    """Writes model.onnx, weights.safetensors, card.json and a few examples into a folder, and checks the ONNX file.

    `examples` are the rows of the parity check. Weights and card rebuild the torch network, for a warm start or a
    trace; serving needs the ONNX file alone. Returns its path. Raises ParityError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    export(model, card, path)
    parity(model, card, path, examples)
    save_file(model.state_dict(), folder / WEIGHTS_FILE)
    _write_card(card, folder)
    save_file(_tensors(_rows(card, examples, _KEPT)), folder / EXAMPLE_FILE)
    return path


def save_lowered(data: bytes, card: AnyCard, folder: Path) -> None:
    """Replaces a folder's model.onnx by a lower precision of it, and its card. Raises ShapeError."""
    model = onnx.ModelProto.FromString(data)
    onnx.helper.set_model_props(model, {"tidecast": card.to_json()})
    path = folder / MODEL_FILE
    path.write_bytes(model.SerializeToString())
    _check(session(path), card)
    _write_card(card, folder)


def _write_card(card: AnyCard, folder: Path) -> None:
    (folder / CARD_FILE).write_bytes(msgspec.json.format(card.to_json().encode(), indent=2))


def export(model: nn.Module, card: AnyCard, path: Path) -> None:
    """Writes the model, in evaluation mode, as one ONNX file with its card: the card's inputs to its outputs."""
    _clear_export_caches()
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
            tuple(example(card).values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(card.inputs),
            output_names=list(card.outputs),
            dynamic_shapes=tuple(_dynamic(array) for array in card.inputs.values()),
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # source lines and paths of this machine
    program.model.metadata_props["tidecast"] = card.to_json()
    program.save(path, external_data=False)
    _check(session(path), card)


def _clear_export_caches() -> None:
    """torch 2.13 caches traces of LSTMs process-wide, and would fix the next export's sequence length."""
    torch._dynamo.reset()
    torch.ops.aten.lstm.input._dispatch_cache.clear()


def example(card: AnyCard) -> dict[str, Tensor]:
    """Example inputs for the card: ones, with a batch of 2 and 3 steps where these are dynamic."""
    return {name: _ones(array) for name, array in card.inputs.items()}


def _ones(array: Array) -> Tensor:
    shape = [_ANY[size] if isinstance(size, str) else size for size in array.shape]
    return torch.ones(shape, dtype=_DTYPES[array.dtype])


def _dynamic(array: Array) -> dict[int, torch.export.Dim]:
    return {place: torch.export.Dim(size) for place, size in enumerate(array.shape) if isinstance(size, str)}


def _rows(card: AnyCard, examples: Examples, count: int) -> Examples:
    """`count` of the examples, repeated if there are fewer."""
    axes = {name: array.shape.index("batch") for name, array in card.inputs.items()}
    some = np.arange(count) % examples["x"].shape[axes["x"]]
    return {name: np.take(examples[name], some, axis) for name, axis in axes.items()}


def _tensors(arrays: Examples) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def session(path: Path | bytes) -> ort.InferenceSession:
    """An onnxruntime session on one CPU thread, as in serving: bitwise the same in any batch of 4 or more.

    `path` is a file, or its bytes.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def parity(model: nn.Module, card: AnyCard, path: Path, examples: Examples) -> float:
    """Compares torch with the file on batches of 1, 7 and 64 examples; returns the largest difference.

    It is relative to the largest absolute value of an output in its batch. Raises ParityError above 1e-4.
    """
    run, worst = session(path), 0.0
    for size in PARITY_BATCHES:
        inputs = _rows(card, examples, size)
        with torch.inference_mode():
            expected = model.eval()(*_tensors(inputs).values())
        outputs = expected if isinstance(expected, tuple) else (expected,)
        for actual, output in zip(run.run(None, dict(inputs)), outputs, strict=True):
            largest = max(float(output.abs().max()), np.finfo(np.float32).tiny)
            difference = float(np.abs(actual - output.numpy()).max() / largest)
            if not difference <= TOLERANCE:
                raise ParityError(
                    f"{path}: at batch size {size} torch and onnxruntime differ by {difference:.1e}, relative"
                )
            worst = max(worst, difference)
    return worst


def _check(run: ort.InferenceSession, card: AnyCard) -> None:
    """Check that the file's fixed and dynamic dimensions are those of the card."""
    expected = [list(array.shape) for array in (*card.inputs.values(), *card.outputs.values())]
    actual = [node.shape for node in (*run.get_inputs(), *run.get_outputs())]
    free = [[size if isinstance(size, int) else "any" for size in shape] for shape in actual]
    if free != [[size if isinstance(size, int) else "any" for size in shape] for shape in expected]:
        raise ShapeError(f"the exported file has the shapes {actual}, its card {expected}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings about torch internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
