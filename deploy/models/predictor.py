"""Inference with one ONNX model in an onnxruntime session, on GPU or CPU."""

import contextlib
import ctypes
import logging
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from deploy.models.synthetic import SyntheticInput
from deploy.settings.values import Device
from model.artifacts.versions import Version
from model.card import AnyCard
from model.levels import Levels
from pipeline.formats.headers import MODEL, PROVIDER, VERSION
from tidecast.errors import ConfigError, ModelUnavailable

logger = logging.getLogger(__name__)

MIN_BATCH = 4
"""Below it onnxruntime's CPU kernels sum in another order; smaller batches are padded so that outputs are the same bits
at any batch size."""
CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "use_tf32": "0",
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
}
"""float32 as on the CPU; no more memory than a batch needs, since two models are loaded during a swap; and a
heuristic choice of convolution algorithms, because an exhaustive search would run again for each new batch size."""
CHUNK = 256
"""Most windows or texts in one call of onnxruntime."""
Outputs = npt.NDArray[np.floating]
# One thread, so that chunks come in order; onnxruntime releases the GIL while it computes.
_inference_thread = ThreadPoolExecutor(1, "inference")


class ModelInput(Protocol):
    """A batch of windows or texts."""

    def __len__(self) -> int: ...

    def arrays(self, start: int, stop: int) -> Mapping[str, npt.NDArray[Any]]:
        """The model's named input arrays for the rows from start to stop."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A loaded model. It is in memory as a whole: what happens to its file later does not matter."""

    session: ort.InferenceSession
    label: str
    """NAME/VERSION or the file's name; forecasts carry it."""
    device: str
    """cpu or cuda."""
    device_reason: str
    """Why that device was chosen."""
    card: AnyCard
    data: bytes = field(repr=False)
    """The file; the session holds the same object."""
    sha256: str
    """Of the file, in hex."""
    version: Version | None = None
    """The registered version that it is; None for a file."""
    _levels: Levels = field(init=False)
    _said: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_levels", Levels.of(self.card))

    @property
    def provenance(self) -> dict[str, str]:
        """What identifies the model behind a forecast or label, by the names of its headers."""
        return {MODEL: self.sha256, VERSION: self.label, PROVIDER: self.session.get_providers()[0]}

    def predict(self, batch: ModelInput, failed: dict[int, str] | None = None) -> Iterator[Outputs]:
        """The model's output (b,...) for B windows or texts, in order, in chunks of up to CHUNK rows.

        The next chunk is computed while the caller consumes the current one; a batch of up to CHUNK rows is one call.
        With `failed`, a row for which inference raises gets its error there, and NaN as its output; no other row's
        output depends on it. Raises ModelUnavailable if inference fails for inputs that it worked for before.
        """
        run = self._run if failed is None else partial(self._run_separating, failed=failed)
        starts = range(0, len(batch), CHUNK)
        chunks = (batch.arrays(start, start + CHUNK) for start in starts)
        yield from (map if len(batch) <= CHUNK else _inference_thread.map)(run, starts, chunks)

    def warm_up(self) -> bool:
        """Predict a synthetic batch; whether all outputs are finite."""
        return all(bool(np.isfinite(outputs).all()) for outputs in self.predict(SyntheticInput(self.card)))

    def _run(self, start: int, arrays: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        nodes, names, (output,) = self.session.get_inputs(), list(self.card.inputs), self.card.outputs.values()
        arrays, shifts = self._levels.lowered(arrays, self._say_once)
        feed = {node.name: _pad(arrays[name]) for node, name in zip(nodes, names, strict=True)}
        rows = len(arrays[names[0]])
        (values,) = self.session.run(None, feed)
        return self._levels.raised(np.asarray(values[:rows]).reshape(rows, *output.shape[1:]), shifts)

    def _say_once(self, loss: str) -> None:
        if loss not in self._said:
            self._said.add(loss)
            logger.warning(f"{self.label}: {loss}; not said again")

    def _run_separating(self, start: int, arrays: Mapping[str, npt.NDArray[Any]], failed: dict[int, str]) -> Outputs:
        before = len(failed)
        outputs = self._bisect(start, arrays, failed)
        if len(failed) > before:
            try:
                self.warm_up()
            except Exception as error:  # onnxruntime's exceptions have no common base class of their own
                raise ModelUnavailable(f"{self.label} no longer works on {self.device}: {first_line(error)}") from error
        return outputs

    def _bisect(self, start: int, arrays: Mapping[str, npt.NDArray[Any]], failed: dict[int, str]) -> Outputs:
        """The outputs of a batch in which some rows make inference fail, found by halving it again and again."""
        try:
            return self._run(start, arrays)
        except Exception as error:
            rows = len(arrays[next(iter(self.card.inputs))])
            if rows == 1:
                failed[start] = first_line(error)
                (output,) = self.card.outputs.values()
                return np.full((1, *map(int, output.shape[1:])), np.nan, np.float32)
        half = rows // 2
        parts = ((0, half), (half, rows))
        return np.concatenate(
            [
                self._bisect(start + low, {name: array[low:high] for name, array in arrays.items()}, failed)
                for low, high in parts
            ]
        )


def first_line(error: Exception) -> str:
    """An error's message as one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _pad(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Repeat the last row up to MIN_BATCH rows; zeros might be invalid, as a length is."""
    missing = MIN_BATCH - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def open_session(data: bytes, device: Device) -> tuple[ort.InferenceSession, str]:
    """An onnxruntime session of a file's bytes, and why it runs where it does.

    Raises ConfigError if `device` is not available.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    reason = "asked for" if device == "cpu" else "this onnxruntime has no CUDA provider (onnxruntime-gpu does)"
    if device != "cpu" and CUDA in ort.get_available_providers():
        session, reason = _open_cuda_session(data, options)
        if session:
            return session, "the CUDA provider loads"
    if device == "cuda":
        raise ConfigError(f"device cuda: {reason}")
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]), reason


def _open_cuda_session(data: bytes, options: ort.SessionOptions) -> tuple[ort.InferenceSession | None, str]:
    """A session on the GPU, or why there is none.

    onnxruntime's own fallback is disabled: it prints to stdout, and could move a running service to the CPU.
    """
    _load_cuda_libraries()
    try:
        session = ort.InferenceSession(data, options, providers=[(CUDA, CUDA_OPTIONS)], enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no common base class of their own
        failure = re.search("CUDA failure [^;]*[^; ]", str(error))
        return None, f"the CUDA provider does not start: {failure[0] if failure else str(error).splitlines()[0]}"
    if session.get_providers()[0] == CUDA:
        return session, ""
    return None, f"the CUDA provider does not load here{_missing_library()}"


@cache
def _load_cuda_libraries() -> None:
    """Load the libraries that the CUDA provider needs, once per process.

    The provider finds CUDA's libraries only on the system's search path or already loaded; those from torch's and
    NVIDIA's wheels are elsewhere, and not necessarily next to onnxruntime.
    """
    ort.set_default_logger_severity(4)  # failures are reported in one line of our own
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # the provider's use_tf32 does not cover cuDNN's LSTM
    with Path(os.devnull).open("w") as devnull, contextlib.redirect_stdout(devnull):
        for folder in (*_cuda_folders(), None):
            ort.preload_dlls(directory=folder)


def _missing_library() -> str:
    """Why the CUDA provider could not be loaded, as the end of a sentence.

    Only to be called after that failure: loading the library directly would leave it without onnxruntime.
    """
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return f": {error}"
    return ""


def _cuda_folders() -> list[str]:
    """Folders where wheels install CUDA's libraries; torch is located, not imported."""
    nvidia, torch = find_spec("nvidia"), find_spec("torch")
    wheels = [Path(each) for each in (nvidia.submodule_search_locations or () if nvidia else ())]
    folders = [folder for wheel in wheels for folder in sorted(wheel.glob("*/lib"))]
    folders += [Path(each) / "lib" for each in (torch.submodule_search_locations or () if torch else ())]
    return [str(folder) for folder in folders if folder.is_dir()]
