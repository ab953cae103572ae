"""Loading a model: an ONNX file, or a registered version by way of the local cache, checked against its card."""

import hashlib
import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import onnxruntime as ort

from deploy.models.predictor import CUDA, Predictor, first_line, open_session
from deploy.models.verdicts import write_atomically
from deploy.settings.locations import models
from deploy.settings.values import Device
from model.artifacts.allowlist import MAX_BYTES, check_model
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
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
    try:
        return load_bytes(read_file(path), label, device)
    except UnsafeModel as error:
        raise ConfigError(f"{path}: {error}") from None


def read_file(path: Path) -> bytes:
    """A model file's bytes. Raises ConfigError if there is none, UnsafeModel for one that is too large."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    if path.stat().st_size > MAX_BYTES:
        raise UnsafeModel(f"{path.stat().st_size:,} bytes, and {MAX_BYTES:,} is the most")
    return path.read_bytes()


def load_bytes(data: bytes, label: str, device: Device) -> Predictor:
    """Load the bytes of an ONNX file.

    Raises UnsafeModel, ShapeError, DataError for its card, ConfigError if `device` is not available.
    """
    check_model(data)
    try:
        session, device_reason = open_session(data, device)
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base class of their own
        raise UnsafeModel(f"not a model that onnxruntime can load: {first_line(error)}") from error
    metadata = session.get_modelmeta().custom_metadata_map.get("tidecast")
    card = _foreign_card(session, label) if metadata is None else _checked_card(session, read_card(metadata))
    on_gpu = session.get_providers()[0] == CUDA
    digest = hashlib.sha256(data).hexdigest()
    return Predictor(session, label, "cuda" if on_gpu else "cpu", device_reason, card, data, digest)


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
    the version that last served by the name is loaded from the cache and checked again. Raises RegistryError too.
    """
    if model.endswith(".onnx"):
        return load_onnx(Path(model), Path(model).name, device)
    registry = Registry(tracking_uri)
    try:
        version = registry.resolve(model)
    except RegistryUnavailable as error:
        served = last_served(model, registry)
        if served is None:
            raise
        logger.warning(f"the registry is unavailable: {error}; using {served.label}, which last served as {model}")
        version = served
    return replace(load_onnx(registry.download(version, models()), version.label, device), version=version)


def note_served(reference: str, registry: Registry, version: Version) -> None:
    """Remember that a version serves by a name: for a start without the registry, or without a better version.

    The URI may hold a password, so it is noted without.
    """
    with suppress(OSError):
        write_atomically(_note(reference), msgspec.json.encode((registry.redacted_uri, version)))


def last_served(reference: str, registry: Registry) -> Version | None:
    """The version that last served by a name, on this machine and from this registry."""
    try:
        noted_uri, version = msgspec.json.decode(_note(reference).read_bytes(), type=tuple[str, Version])
    except (OSError, msgspec.DecodeError):
        return None
    return version if noted_uri in (registry.redacted_uri, registry.tracking_uri) else None


def _note(reference: str) -> Path:
    return models() / f"{reference.replace('/', '-')}.json"
