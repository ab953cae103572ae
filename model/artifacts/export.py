"""torch to one self-describing ONNX file, and the proof that both give the same.

The file holds network, weights, normalisation and card: it is all that serving needs.
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
import onnxruntime as ort
import torch
import torch._dynamo
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from safetensors.torch import save_file
from torch import Tensor, nn

from model.card import MODEL_FILE, AnyCard, Array
from tidecast.errors import ParityError, ShapeError

OPSET = 20
TOLERANCE = 1e-4
"""The greatest difference between torch and onnxruntime, relative to the greatest value of an output."""
PARITY_BATCHES = (1, 7, 64)
WEIGHTS_FILE, CARD_FILE, EXAMPLE_FILE = "weights.safetensors", "card.json", "example.safetensors"
"""What lies beside the model file: the network again, and a batch to look at it with."""
_KEPT = 8
_ANY = {"batch": 2, "steps": 3}
"""Lengths in the exporter's example. One of 1 would be taken for a constant."""
_DTYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}

Examples = Mapping[str, npt.NDArray[Any]]
"""A model's named inputs for some rows."""


def save(model: nn.Module, card: AnyCard, folder: Path, examples: Examples) -> Path:
    """Writes model.onnx, weights.safetensors, card.json and a few examples into a folder, and checks the ONNX file.

    `examples` are rows to compare on. The weights and the card make the network again (for a warm start, or a look at
    it), the ONNX file alone serves it: its path is returned. Raises ParityError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    export(model, card, path)
    parity(model, card, path, examples)
    save_file(model.state_dict(), folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_bytes(msgspec.json.format(card.to_json().encode(), indent=2))
    save_file(_tensors(_rows(card, examples, _KEPT)), folder / EXAMPLE_FILE)
    return path


def export(model: nn.Module, card: AnyCard, path: Path) -> None:
    """Writes the model, in evaluation mode, as one ONNX file with its card: the card's inputs to its outputs."""
    _forget_earlier_exports()
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
    ClearMetadataAndDocStringPass()(program.model)  # it holds source lines and paths of the machine that exports
    program.model.metadata_props["tidecast"] = card.to_json()
    program.save(path, external_data=False)
    _check(session(path), card)


def _forget_earlier_exports() -> None:
    """torch 2.13 remembers, for a whole process, how it traced an LSTM, and freezes the next one's length by that."""
    torch._dynamo.reset()
    torch.ops.aten.lstm.input._dispatch_cache.clear()


def example(card: AnyCard) -> dict[str, Tensor]:
    """The card's inputs, made up: ones, two rows of three steps where any number will do."""
    return {name: _ones(array) for name, array in card.inputs.items()}


def _ones(array: Array) -> Tensor:
    shape = [_ANY[size] if isinstance(size, str) else size for size in array.shape]
    return torch.ones(shape, dtype=_DTYPES[array.dtype])


def _dynamic(array: Array) -> dict[int, torch.export.Dim]:
    return {place: torch.export.Dim(size) for place, size in enumerate(array.shape) if isinstance(size, str)}


def _rows(card: AnyCard, examples: Examples, count: int) -> Examples:
    """So many of the examples, repeated where there are fewer."""
    axes = {name: array.shape.index("batch") for name, array in card.inputs.items()}
    some = np.arange(count) % examples["x"].shape[axes["x"]]
    return {name: np.take(examples[name], some, axis) for name, axis in axes.items()}


def _tensors(arrays: Examples) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def session(path: Path) -> ort.InferenceSession:
    """An onnxruntime session on one CPU thread, as serving runs it: its bits don't depend on the batch (from 4 on)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def parity(model: nn.Module, card: AnyCard, path: Path, examples: Examples) -> float:
    """Compares torch with the file on examples, repeated to batches of 1, 7 and 64; the greatest difference.

    The difference is relative to the greatest value of an output in its batch. Raises ParityError past 1e-4.
    """
    run, worst = session(path), 0.0
    for size in PARITY_BATCHES:
        given = _rows(card, examples, size)
        with torch.inference_mode():
            expected = model.eval()(*_tensors(given).values())
        wanted = expected if isinstance(expected, tuple) else (expected,)
        for theirs, ours in zip(run.run(None, dict(given)), wanted, strict=True):
            difference = float(
                np.abs(theirs - ours.numpy()).max() / max(float(ours.abs().max()), np.finfo(np.float32).tiny)
            )
            if not difference <= TOLERANCE:
                raise ParityError(f"{path}: at batch {size} torch and onnxruntime differ by {difference:.1e}, relative")
            worst = max(worst, difference)
    return worst


def _check(run: ort.InferenceSession, card: AnyCard) -> None:
    """Every dimension that is fixed, or free, must have stayed so."""
    expected = [list(array.shape) for array in (*card.inputs.values(), *card.outputs.values())]
    given = [node.shape for node in (*run.get_inputs(), *run.get_outputs())]
    free = [[size if isinstance(size, int) else "any" for size in shape] for shape in given]
    if free != [[size if isinstance(size, int) else "any" for size in shape] for shape in expected]:
        raise ShapeError(f"the exported file has {given}, its card says {expected}")


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
