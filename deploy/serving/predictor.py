"""Inference: one ONNX file in an onnxruntime session, on GPU or CPU, checked against the shapes it declares."""

import contextlib
import ctypes
import logging
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from deploy.settings.defaults import MODELS
from deploy.settings.values import Device
from model.artifacts.allowlist import check_file
from model.artifacts.registry import Registry
from model.artifacts.versions import Version, sha256
from model.card import AnyCard, Array, Arrays, Card, InputSpec, OutputSpec, read_card
from pipeline.formats.headers import MODEL, PROVIDER, VERSION
from tidecast.errors import ConfigError, RegistryUnavailable, ShapeError, UnsafeModel

logger = logging.getLogger(__name__)

MIN_BATCH = 4
"""Below it onnxruntime's CPU kernels sum in another order; batches are padded up to it so that bits never change."""
CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "use_tf32": "0",
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
}
"""float32 as on the CPU; no more memory than a batch needs, as a swap has two models in it; and the algorithm of a
foreign model's convolution is chosen, not searched for anew at each size of batch."""
TYPES = {"float32": "tensor(float)", "bool": "tensor(bool)", "int64": "tensor(int64)"}
MANY = {"batch": "batches", "steps": "texts"}
FOREIGN = "a model without Tidecast's metadata must be (batch, seq, 1) -> (batch, horizon)"
CHUNK = 256
"""Windows or texts in one call of onnxruntime."""
Outputs = npt.NDArray[np.float32]
# One thread, so that parts come one after another; onnxruntime works without the interpreter's lock meanwhile.
_AHEAD = ThreadPoolExecutor(1, "inference")


class ModelInput(Protocol):
    """What waits to be predicted: windows, or texts."""

    def __len__(self) -> int: ...

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """A model's named inputs for some of it."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A model ready to predict. `label` names it in what it says; `device` is where it runs, `because` why there."""

    session: ort.InferenceSession
    label: str
    device: str
    device_reason: str
    card: AnyCard
    path: Path
    sha256: str
    """Of the file, in hex."""

    @property
    def provenance(self) -> list[tuple[str, bytes]]:
        """Headers by which an answer tells what made it."""
        facts = {MODEL: self.sha256, VERSION: self.label, PROVIDER: self.session.get_providers()[0]}
        return [(name, fact.encode()) for name, fact in facts.items()]

    def predict(self, ready: ModelInput) -> Iterator[Outputs]:
        """The model's output (b,...) for B windows or texts in their order, in parts of up to CHUNK.

        A part is computed while the caller uses the one before; B up to CHUNK are one call.
        """
        parts = (ready.arrays(start, start + CHUNK) for start in range(0, len(ready), CHUNK))
        yield from map(self._run, parts) if len(ready) <= CHUNK else _AHEAD.map(self._run, parts)

    def _run(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        nodes, names, (output,) = self.session.get_inputs(), list(self.card.inputs), self.card.outputs.values()
        feed = {node.name: _padded(arrays[name]) for node, name in zip(nodes, names, strict=True)}
        count = len(arrays[names[0]])
        (given,) = self.session.run(None, feed)
        return np.asarray(given[:count]).reshape(count, *output.shape[1:])


def _padded(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """At least MIN_BATCH rows: the last one again where they are missing, as zeros may be no input (a length)."""
    missing = MIN_BATCH - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def load(path: Path, label: str, device: Device = "auto") -> Predictor:
    """A predictor for the model in an ONNX file, ours or a foreign one (B,S,1) -> (B,K).

    Raises ShapeError if the file does not fit its own specification, ConfigError if it is no model, holds what none
    needs (model.artifacts.allowlist), or the device asked for is not to be had.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    try:
        check_file(path)
        session, device_reason = _session(path, device)
    except UnsafeModel as error:
        raise ConfigError(f"{path}: {error}") from None
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime's errors have no class of their own above them
        raise ConfigError(f"{path}: not a model that onnxruntime can load: {str(error).splitlines()[0]}") from None
    text = session.get_modelmeta().custom_metadata_map.get("tidecast")
    card = _foreign(session, label) if text is None else _declared(session, read_card(text))
    on_gpu = session.get_providers()[0] == CUDA
    return Predictor(session, label, "cuda" if on_gpu else "cpu", device_reason, card, path, sha256(path))


def _session(path: Path, device: Device) -> tuple[ort.InferenceSession, str]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    why_not = "asked for" if device == "cpu" else "this onnxruntime has no CUDA provider (onnxruntime-gpu does)"
    if device != "cpu" and CUDA in ort.get_available_providers():
        session, why_not = _cuda_session(path, options)
        if session:
            return session, "the CUDA provider loads"
    if device == "cuda":
        raise ConfigError(f"device cuda: {why_not}")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]), why_not


def _cuda_session(path: Path, options: ort.SessionOptions) -> tuple[ort.InferenceSession | None, str]:
    """A session on the GPU, or why there is none.

    Without onnxruntime's own fallback, which would say so on stdout, and move a service to the CPU in the middle.
    """
    _load_cuda_libraries()
    try:
        session = ort.InferenceSession(path, options, providers=[(CUDA, CUDA_OPTIONS)], enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no class of their own above them
        failure = re.search("CUDA failure [^;]*[^; ]", str(error))
        return None, f"the CUDA provider does not start: {failure[0] if failure else str(error).splitlines()[0]}"
    if session.get_providers()[0] == CUDA:
        return session, ""
    return None, f"the CUDA provider does not load here{_missing_library()}"


@cache
def _load_cuda_libraries() -> None:
    """Loads what the CUDA provider needs, once a process.

    The provider finds CUDA's libraries only where the system looks for them, or loaded: those of torch and of NVIDIA's
    wheels lie elsewhere, and need not lie beside onnxruntime.
    """
    ort.set_default_logger_severity(4)  # what is wrong is said in one line of our own
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # the provider's use_tf32 leaves cuDNN's LSTM out
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        for folder in (*_cuda_folders(), None):
            ort.preload_dlls(directory=folder)


def _missing_library() -> str:
    """Why the CUDA provider could not be loaded, for the end of a line. Only after it could not: loading it by itself
    would leave it without onnxruntime."""
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return f": {error}"
    return ""


def _cuda_folders() -> list[str]:
    """Where wheels may have put CUDA's libraries; torch is only looked for, not imported."""
    nvidia, torch = find_spec("nvidia"), find_spec("torch")
    wheels = [Path(each) for each in (nvidia.submodule_search_locations or () if nvidia else ())]
    folders = [folder for wheel in wheels for folder in sorted(wheel.glob("*/lib"))]
    folders += [Path(each) / "lib" for each in (torch.submodule_search_locations or () if torch else ())]
    return [str(folder) for folder in folders if folder.is_dir()]


def _declared(session: ort.InferenceSession, card: AnyCard) -> AnyCard:
    if isinstance(card, Card) and "future" in card.inputs:
        known = ", ".join(card.input.known)
        raise ConfigError(f"the model must know {known} for the steps it forecasts, which a stream does not tell")
    if wrong := _incompatibility(session, card.inputs, card.outputs):
        raise ShapeError(f"{wrong} by its specification")
    return card


def _foreign(session: ort.InferenceSession, label: str) -> Card:
    if not session.get_inputs():
        raise ShapeError(f"{FOREIGN}: it has no input")
    shape, out = session.get_inputs()[0].shape, session.get_outputs()[0].shape
    if len(shape) != 3 or len(out) != 2 or not isinstance(shape[1], int) or not isinstance(out[1], int):
        raise ShapeError(f"{FOREIGN}: it has {shape} -> {out}")
    inputs, outputs = InputSpec(seq_len=shape[1]), OutputSpec(horizon=out[1])
    if wrong := _incompatibility(session, inputs.arrays(out[1]), {"forecast": Array("float32", ("batch", out[1]))}):
        raise ShapeError(f"{FOREIGN}: {wrong}")
    return Card(name=label, input=inputs, output=outputs, arch="foreign", trained_until=0)


def _incompatibility(session: ort.InferenceSession, inputs: Arrays, outputs: Arrays) -> str:
    """What keeps a file from taking and giving arrays of these types and shapes."""
    taken, given = session.get_inputs(), session.get_outputs()
    if (len(taken), len(given)) != (len(inputs), len(outputs)):
        wanted = f"{len(inputs)} and {len(outputs)}"
        return f"it has {len(taken)} inputs and {len(given)} outputs, and must have {wanted}"
    for node, array in zip((*taken, *given), (*inputs.values(), *outputs.values()), strict=True):
        fixed = [size if isinstance(wanted, int) else wanted for size, wanted in zip(node.shape, array.shape)]  # noqa: B905
        if node.type != TYPES[array.dtype] or len(node.shape) != len(array.shape) or fixed != list(array.shape):
            return f"{node.name!r} is {node.type} {node.shape}, and must be {TYPES[array.dtype]} {list(array.shape)}"
        for size, free in zip(node.shape, array.shape, strict=True):
            if isinstance(size, int) and isinstance(free, str):
                return f"{node.name!r} takes {MANY[free]} of {size} only, and must take any"
    return ""


def load_model(model: str, tracking_uri: str, device: Device = "auto") -> Predictor:
    """A predictor for NAME@ALIAS or NAME/VERSION in a registry, or for a file whose name ends in .onnx.

    A version is downloaded once, checked against its registered sha256, and kept. While the registry is out of reach it
    is the one that the name meant last, checked again. Raises RegistryError too.
    """
    if model.endswith(".onnx"):
        return load(Path(model), Path(model).name, device)
    registry = Registry(tracking_uri)
    noted = MODELS / f"{model.replace('/', '-')}.json"
    try:
        version = registry.resolve(model)
    except RegistryUnavailable as error:
        last = _noted(noted, tracking_uri)
        if last is None:
            raise
        logger.warning(f"the registry is unavailable: {error}; {model} was {last.label} when it last answered")
        return load(registry.download(last, MODELS), last.label, device)
    path = registry.download(version, MODELS)
    temporary = noted.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode((tracking_uri, version)))
    temporary.replace(noted)
    return load(path, version.label, device)


def _noted(path: Path, tracking_uri: str) -> Version | None:
    """What a name meant in a registry when it was last looked up."""
    try:
        where, version = msgspec.json.decode(path.read_bytes(), type=tuple[str, Version])
    except (OSError, msgspec.DecodeError):
        return None
    return version if where == tracking_uri else None
