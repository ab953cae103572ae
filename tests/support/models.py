"""Untrained networks as model files, each made once a run, as an export takes seconds; and a model that fails."""

import hashlib
from pathlib import Path

import onnx
import onnx.parser
import torch
from sharing import Shared

from deploy.models.loading import load_bytes
from deploy.models.predictor import Predictor
from model.artifacts.export import export
from model.card import Card
from model.networks.forecast import build_network


def exported(shared: Shared, card: Card, seed: int = 0) -> Path:
    """NAME.onnx of a network of this card, with the weights that come of this seed."""
    name = hashlib.sha256(f"{seed} {card.to_json()}".encode()).hexdigest()[:16]

    def make(folder: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            export(build_network(card), card, folder / f"{card.name}.onnx")

    return shared.made(f"model-{name}", make) / f"{card.name}.onnx"


FRAGILE = """
<ir_version: 10, opset_import: ["" : 20]>
fragile (float[batch, 4, 1] x) => (float[batch, 2] y)
<int64[1] third = {3}, int64[1] fourth = {4}, int64[1] one = {1}, int64[1] two = {2},
 float seven = {7}, float six = {6}, float five = {5}, float[1] zero = {0}> {
    flat = Squeeze (x, two)
    last = Slice (flat, third, fourth, one)
    rest = Mod <fmod = 1> (last, seven)
    above = Greater (rest, six)
    place = Cast <to = 7> (above)
    nothing = Gather (zero, place)
    left = Sub (five, rest)
    root = Sqrt (left)
    value = Add (root, nothing)
    y = Concat <axis = 1> (value, value)
}"""


def fragile(label: str = "fragile.onnx") -> Predictor:
    """(B,4,1) -> (B,2): by the last value, modulo 7, the root of 5 less it; not finite from 5 on, an error above 6."""
    return load_bytes(onnx.parser.parse_model(FRAGILE).SerializeToString(), label, "cpu")


def weights_are_not_finite(model: onnx.ModelProto) -> None:
    """Make all of a model's weights NaN."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor) * float("nan")
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
