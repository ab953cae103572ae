"""Inference: one ONNX file in an onnxruntime session, on GPU or CPU, checked against the shapes it declares."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from deploy.config import MODELS, ConfigError, Device
from model.registry import Registry
from model.spec import Card, InputSpec, OutputSpec, ShapeError
from pipeline.windows import Windows

MIN_BATCH = 4
"""Below it onnxruntime's CPU kernels sum in another order; batches are padded up to it so that bits never change."""
CUDA = "CUDAExecutionProvider"
TYPES = {"x": "tensor(float)", "observed": "tensor(bool)", "step": "tensor(int64)"}
FOREIGN = "a model without Tidecast's metadata must be (batch, seq, 1) -> (batch, horizon)"
CHUNK = 256
"""Windows in one call of onnxruntime."""
Forecasts = npt.NDArray[np.float32]
Shape = tuple[int, ...]
# One thread, so that parts come one after another; onnxruntime works without the interpreter's lock meanwhile.
_AHEAD = ThreadPoolExecutor(1, "inference")


@dataclass(frozen=True, slots=True)
class Predictor:
    """A model ready to forecast. `label` names it in its forecasts; `device` is where it runs, `because` why there."""

    session: ort.InferenceSession
    label: str
    device: str
    because: str
    inputs: InputSpec
    outputs: OutputSpec

    def predict(self, windows: Windows) -> Iterator[Forecasts]:
        """Forecasts (b,K,O) for B windows in their order, raw units, in parts of up to CHUNK.

        A part is computed while the caller uses the one before; B up to CHUNK are one call.
        """
        given = {"x": windows.x, "observed": windows.observed, "step": windows.step}
        arrays = [given[name] for name in self.inputs.inputs]
        parts = [[array[start : start + CHUNK] for array in arrays] for start in range(0, len(windows), CHUNK)]
        yield from map(self._run, parts) if len(parts) == 1 else _AHEAD.map(self._run, parts)

    def _run(self, arrays: list[npt.NDArray[np.generic]]) -> Forecasts:
        nodes, count = self.session.get_inputs(), len(arrays[0])
        feed = {node.name: _padded(array) for node, array in zip(nodes, arrays, strict=True)}
        (forecast,) = self.session.run(None, feed)
        return np.asarray(forecast[:count]).reshape(count, self.outputs.horizon, len(self.outputs.targets))


def _padded(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    missing = MIN_BATCH - len(array)
    return array if missing <= 0 else np.pad(array, [(0, missing), *[(0, 0)] * (array.ndim - 1)])


def load(path: Path, label: str, device: Device = "auto") -> Predictor:
    """A predictor for the model in an ONNX file, ours or a foreign one (B,S,1) -> (B,K).

    Raises ShapeError if the file does not fit its own specification, ConfigError if it is no model or the device
    asked for is not to be had.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    try:
        session, because = _session(path, device)
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime's errors have no class of their own above them
        raise ConfigError(f"{path}: not a model that onnxruntime can load: {str(error).splitlines()[0]}") from None
    text = session.get_modelmeta().custom_metadata_map.get("tidecast")
    inputs, outputs = _foreign(session) if text is None else _declared(session, Card.from_json(text))
    on_gpu = session.get_providers()[0] == CUDA
    return Predictor(session, label, "cuda" if on_gpu else "cpu", because, inputs, outputs)


def _session(path: Path, device: Device) -> tuple[ort.InferenceSession, str]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    why_not = "asked for" if device == "cpu" else "this onnxruntime has no CUDA provider (onnxruntime-gpu does)"
    if device != "cpu" and CUDA in ort.get_available_providers():
        session = ort.InferenceSession(path, options, providers=[(CUDA, {"use_tf32": "0"})])
        if session.get_providers()[0] == CUDA:
            return session, "the CUDA provider loads"
        why_not = "the CUDA provider does not load here"
    if device == "cuda":
        raise ConfigError(f"device cuda: {why_not}")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]), why_not


def _declared(session: ort.InferenceSession, card: Card) -> tuple[InputSpec, OutputSpec]:
    window, outputs = (card.input.seq_len, len(card.input.features)), card.output
    shapes = {"x": window, "observed": window, "step": ()}
    wanted = [(TYPES[name], shapes[name]) for name in card.input.inputs]
    if wrong := _misfit(session, wanted, (outputs.horizon, len(outputs.targets))):
        raise ShapeError(f"{wrong} by its specification")
    return card.input, outputs


def _foreign(session: ort.InferenceSession) -> tuple[InputSpec, OutputSpec]:
    if not session.get_inputs():
        raise ShapeError(f"{FOREIGN}: it has no input")
    shape, out = session.get_inputs()[0].shape, session.get_outputs()[0].shape
    if len(shape) != 3 or len(out) != 2 or not isinstance(shape[1], int) or not isinstance(out[1], int):
        raise ShapeError(f"{FOREIGN}: it has {shape} -> {out}")
    if wrong := _misfit(session, [(TYPES["x"], (shape[1], 1))], (out[1],)):
        raise ShapeError(f"{FOREIGN}: {wrong}")
    return InputSpec(seq_len=shape[1]), OutputSpec(horizon=out[1])


def _misfit(session: ort.InferenceSession, inputs: Sequence[tuple[str, Shape]], output: Shape) -> str:
    """What keeps a file from taking inputs of these types and shapes, and giving such floats, for any batch."""
    taken, given = session.get_inputs(), session.get_outputs()
    if (len(taken), len(given)) != (len(inputs), 1):
        return f"it has {len(taken)} inputs and {len(given)} outputs, and must have {len(inputs)} and 1"
    for node, (kind, rest) in zip((*taken, *given), (*inputs, (TYPES["x"], output)), strict=True):
        if node.type != kind or tuple(node.shape[1:]) != rest:
            return f"{node.name!r} is {node.type} {node.shape}, and must be {kind} {['batch', *rest]}"
        if isinstance(node.shape[0], int):
            return f"{node.name!r} takes batches of {node.shape[0]} only, and must take any"
    return ""


def fetch(model: str, tracking_uri: str, device: Device = "auto") -> Predictor:
    """A predictor for NAME@ALIAS or NAME/VERSION in a registry, or for a file whose name ends in .onnx.

    A version is downloaded once, checked against its registered sha256, and kept. Raises RegistryError too.
    """
    if model.endswith(".onnx"):
        return load(Path(model), Path(model).name, device)
    registry = Registry(tracking_uri)
    version = registry.resolve(model)
    return load(registry.download(version, MODELS), version.label, device)
