"""Loading a model: an ONNX file, or a registered version by way of the local cache, checked against its card."""

import logging
import os
from pathlib import Path

import msgspec
import onnxruntime as ort

from deploy.models.predictor import CUDA, Predictor, open_session
from deploy.settings.locations import MODELS
from deploy.settings.values import Device
from model.artifacts.allowlist import check_file
from model.artifacts.registry import Registry
from model.artifacts.versions import Version, sha256
from model.card import AnyCard, Array, Arrays, Card, InputSpec, OutputSpec, read_card
from tidecast.errors import ConfigError, RegistryUnavailable, ShapeError, UnsafeModel

logger = logging.getLogger(__name__)

ONNX_TYPES = {"float32": "tensor(float)", "bool": "tensor(bool)", "int64": "tensor(int64)"}
DYNAMIC_AXES = {"batch": "batches", "steps": "texts"}
FOREIGN = "a model without Tidecast's metadata must be (batch, seq, 1) -> (batch, horizon)"


def load_onnx(path: Path, label: str, device: Device = "auto") -> Predictor:
    """Load an ONNX file: one of Tidecast's, with a card, or a foreign one (B,S,1) -> (B,K).

    Raises ShapeError if inputs or outputs do not match the card, ConfigError if the file is not a model, contains
    something outside model.artifacts.allowlist, or `device` is not available.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    try:
        check_file(path)
        session, device_reason = open_session(path, device)
    except UnsafeModel as error:
        raise ConfigError(f"{path}: {error}") from None
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base class of their own
        raise ConfigError(f"{path}: not a model that onnxruntime can load: {str(error).splitlines()[0]}") from None
    metadata = session.get_modelmeta().custom_metadata_map.get("tidecast")
    card = _foreign_card(session, label) if metadata is None else _checked_card(session, read_card(metadata))
    on_gpu = session.get_providers()[0] == CUDA
    return Predictor(session, label, "cuda" if on_gpu else "cpu", device_reason, card, path, sha256(path))


def _checked_card(session: ort.InferenceSession, card: AnyCard) -> AnyCard:
    if isinstance(card, Card) and "future" in card.inputs:
        known = ", ".join(card.input.known)
        raise ConfigError(f"the model needs future values of {known}, which a stream does not provide")
    if mismatch := _shape_mismatch(session, card.inputs, card.outputs):
        raise ShapeError(f"{mismatch} according to its card")
    return card


def _foreign_card(session: ort.InferenceSession, label: str) -> Card:
    """A card for a model without one, derived from its shapes."""
    if not session.get_inputs():
        raise ShapeError(f"{FOREIGN}: it has no input")
    shape, out = session.get_inputs()[0].shape, session.get_outputs()[0].shape
    if len(shape) != 3 or len(out) != 2 or not isinstance(shape[1], int) or not isinstance(out[1], int):
        raise ShapeError(f"{FOREIGN}: it has {shape} -> {out}")
    inputs, outputs = InputSpec(seq_len=shape[1]), OutputSpec(horizon=out[1])
    forecast = {"forecast": Array("float32", ("batch", out[1]))}
    if mismatch := _shape_mismatch(session, inputs.arrays(out[1]), forecast):
        raise ShapeError(f"{FOREIGN}: {mismatch}")
    return Card(name=label, input=inputs, output=outputs, arch="foreign", trained_until=0)


def _shape_mismatch(session: ort.InferenceSession, inputs: Arrays, outputs: Arrays) -> str:
    """The first difference between a session's inputs and outputs and these types and shapes; empty if none."""
    actual_inputs, actual_outputs = session.get_inputs(), session.get_outputs()
    if (len(actual_inputs), len(actual_outputs)) != (len(inputs), len(outputs)):
        expected = f"{len(inputs)} and {len(outputs)}"
        return f"it has {len(actual_inputs)} inputs and {len(actual_outputs)} outputs, and must have {expected}"
    for node, array in zip((*actual_inputs, *actual_outputs), (*inputs.values(), *outputs.values()), strict=True):
        fixed = [size if isinstance(want, int) else want for size, want in zip(node.shape, array.shape)]  # noqa: B905
        if node.type != ONNX_TYPES[array.dtype] or len(node.shape) != len(array.shape) or fixed != list(array.shape):
            expected = f"{ONNX_TYPES[array.dtype]} {list(array.shape)}"
            return f"{node.name!r} is {node.type} {node.shape}, and must be {expected}"
        for size, axis in zip(node.shape, array.shape, strict=True):
            if isinstance(size, int) and isinstance(axis, str):
                return f"{node.name!r} takes {DYNAMIC_AXES[axis]} of {size} only, and must take any size"
    return ""


def load_model(model: str, tracking_uri: str, device: Device = "auto") -> Predictor:
    """Load NAME@ALIAS or NAME/VERSION from a registry, or a file whose name ends in .onnx.

    A version is downloaded once, checked against its registered sha256, and cached. While the registry is unavailable,
    the version that the name last resolved to is loaded from the cache and checked again. Raises RegistryError too.
    """
    if model.endswith(".onnx"):
        return load_onnx(Path(model), Path(model).name, device)
    registry = Registry(tracking_uri)
    note = MODELS / f"{model.replace('/', '-')}.json"
    try:
        version = registry.resolve(model)
    except RegistryUnavailable as error:
        cached = _last_resolved(note, tracking_uri)
        if cached is None:
            raise
        logger.warning(f"the registry is unavailable: {error}; using {cached.label}, which {model} last resolved to")
        return load_onnx(registry.download(cached, MODELS), cached.label, device)
    path = registry.download(version, MODELS)
    _note_resolved(note, tracking_uri, version)
    return load_onnx(path, version.label, device)


def _note_resolved(note: Path, tracking_uri: str, version: Version) -> None:
    """Remember what a name resolved to, for a start without the registry."""
    temporary = note.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode((tracking_uri, version)))
    temporary.replace(note)


def _last_resolved(note: Path, tracking_uri: str) -> Version | None:
    """What a name last resolved to in this registry."""
    try:
        noted_uri, version = msgspec.json.decode(note.read_bytes(), type=tuple[str, Version])
    except (OSError, msgspec.DecodeError):
        return None
    return version if noted_uri == tracking_uri else None
