"""A model file in lower precision: int8 for CPUs, fp16 for GPUs. What isn't an LSTM or a product stays float32.

int8 is onnxruntime's DynamicQuantizeLSTM: weights in 8 bits, and each step's inputs and state in 8 bits between the
least and the greatest of the whole batch. A forecast must not depend on what else is in its batch, so both ranges are
fixed here: two more columns of the input are constant at the ends of the range that it had in the examples, to which it
is clipped; and two more units of the state are, at each step, as far from zero as the state of an LSTM can be.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from model.artifacts.export import Examples
from model.card import Precision
from tidecast.errors import ConfigError

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""
PRODUCTS = ("LSTM", "Gemm", "MatMul")
MARGIN = 1.25
"""How far beyond the examples the inputs of an LSTM may go, as a factor."""
SATURATED = 40.0
"""The bias of a gate that is always open or, below zero, always closed; the tanh of it is 1."""
LARGEST = 1e30
"""What an infinite input of an LSTM counts as."""
LEVELS = 127
"""Steps of a weight in 8 bits, on each side of zero."""
Floats = npt.NDArray[np.floating]
Own = Callable[[str], str]
"""From a name within an LSTM's nodes to one within the graph."""
Part = tuple[list[onnx.NodeProto], dict[str, npt.NDArray[Any]]]
"""Nodes, and the constants that they read, by name."""


def lowered(data: bytes, precision: Precision, examples: Examples) -> bytes:
    """A float32 file's bytes in another precision; `examples` are rows from which ranges are taken.

    Raises ConfigError if there is no LSTM in it, which would be all that changes.
    """
    model = onnx.ModelProto.FromString(data)
    cells = [node for node in model.graph.node if node.op_type == "LSTM"]
    if not cells:
        raise ConfigError(f"precision: {precision} changes LSTMs, and the model has none")
    known = _values(model, sorted({name for cell in cells for name in cell.input if name}), examples)
    if precision == "int8":
        parts = {id(cell): _int8(cell, known, f"int8_{place}") for place, cell in enumerate(cells)}
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    else:
        weights = {name: known[name] for cell in cells for name in cell.input[1:4] if name}
        weights |= {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        chosen = [node for node in model.graph.node if node.op_type in PRODUCTS and _multiplies(node, weights)]
        parts = {id(node): _fp16(node, weights, f"fp16_{place}") for place, node in enumerate(chosen)}
    nodes = [each for node in model.graph.node for each in (parts[id(node)][0] if id(node) in parts else [node])]
    constants = {name: array for _, added in parts.values() for name, array in added.items()}
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _share(model, constants)
    pruned = onnx_ir.from_proto(model)
    RemoveUnusedNodesPass()(pruned)
    return bytes(onnx_ir.to_proto(pruned).SerializeToString())


def _share(model: onnx.ModelProto, constants: dict[str, npt.NDArray[Any]]) -> None:
    """Adds constants to a graph, those that are equal once."""
    first: dict[tuple[object, ...], str] = {}
    names = {name: first.setdefault((each.dtype, each.shape, each.tobytes()), name) for name, each in constants.items()}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    model.graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in first.values())


def _values(model: onnx.ModelProto, names: Sequence[str], examples: Examples) -> dict[str, npt.NDArray[Any]]:
    """What these values of the graph are for the examples."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    found = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer if each.name in names}
    asked = [name for name in names if name not in found]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked)
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    return found | dict(zip(asked, session.run(asked, dict(examples)), strict=True))


def _int8(cell: onnx.NodeProto, known: dict[str, npt.NDArray[Any]], prefix: str) -> Part:
    """An LSTM in 8 bits, with two more columns of its input and two more units."""
    rows = [*cell.input, "", "", "", ""]
    x, w, r = (known[name] for name in rows[:3])
    if len(w) > 1:
        raise ConfigError("precision: int8 needs LSTMs of one direction")
    width, size = r.shape[2], MARGIN * np.maximum(np.abs(x).max((0, 1)), np.finfo(np.float32).tiny)
    bias = known[rows[3]] if rows[3] else np.zeros((1, 8 * width), np.float32)
    wide_w, wide_r, wide_bias = _widened(w[0] * size, r[0], bias)
    constants = _int8_constants(-float((x < 0).any()), size, width)
    constants |= {**_in_8_bits("w", wide_w), **_in_8_bits("r", wide_r), "bias": wide_bias}

    def own(name: str) -> str:
        return f"{prefix}_{name}"

    nodes, before = _bounded(rows[0], own), ["", ""]
    if any(np.any(known[name]) for name in rows[5:7] if name):
        before = [own("first_h"), own("first_c")]
        nodes += _padded(rows[5], before[0], "minus_one", "one", own)
        nodes += _padded(rows[6], before[1], "minus_far", "far", own)
    inputs = [own("wide"), own("w"), own("r"), own("bias"), "", *before, ""]
    inputs += [own(name) for name in ("w_scale", "w_zero", "r_scale", "r_zero")]
    made = [name and own(name) for name in cell.output]
    nodes.append(helper.make_node("DynamicQuantizeLSTM", inputs, made, domain=MICROSOFT, hidden_size=width + 2))
    cut = [own(name) for name in ("first", "width", "last_axis")]
    pairs = [(each, name) for each, name in zip(made, cell.output, strict=True) if name]
    nodes += [helper.make_node("Slice", [each, *cut], [name]) for each, name in pairs]
    return nodes, {own(name): array for name, array in constants.items()}


def _int8_constants(low: float, size: Floats, width: int) -> dict[str, npt.NDArray[Any]]:
    """What the nodes around an LSTM of this width read; its input, divided by `size` (F,), is from `low` to 1."""
    numbers = {"zero": 0, "one": 1, "minus_one": -1, "low": low}
    numbers |= {"far": SATURATED, "minus_far": -SATURATED, "most": LARGEST, "least": -LARGEST}
    places = {"first": [0], "second": [1], "width": [width], "last_axis": [-1], "one_more": [0, 0, 0, 0, 0, 1]}
    return {
        **{name: np.array(number, np.float32) for name, number in numbers.items()},
        **{name: np.array(place) for name, place in places.items()},
        "size": size.astype(np.float32),
        "ends": np.array([1, low], np.float32),
    }


def _bounded(name: str, own: Own) -> list[onnx.NodeProto]:
    """An input of an LSTM, (S,B,F), as `wide` (S,B,F+2): within its range, whose ends are the last two columns."""
    return [
        helper.make_node("IsNaN", [name], [own("lost")]),  # it must not become the range of all
        helper.make_node("Where", [own("lost"), own("zero"), name], [own("found")]),
        helper.make_node("Clip", [own("found"), own("least"), own("most")], [own("finite")]),
        helper.make_node("Div", [own("finite"), own("size")], [own("scaled")]),
        helper.make_node("Clip", [own("scaled"), own("low"), own("one")], [own("clipped")]),
        helper.make_node("Slice", [own("clipped"), own("first"), own("second"), own("last_axis")], [own("column")]),
        helper.make_node("Mul", [own("column"), own("zero")], [own("nothing")]),
        helper.make_node("Add", [own("nothing"), own("ends")], [own("columns")]),
        helper.make_node("Concat", [own("clipped"), own("columns")], [own("wide")], axis=-1),
    ]


def _padded(name: str, to: str, low: str, high: str, own: Own) -> list[onnx.NodeProto]:
    """A first state, (1,B,H), with two more units."""
    up = helper.make_node("Pad", [name, own("one_more"), own(high)], [f"{to}_up"])
    return [up, helper.make_node("Pad", [f"{to}_up", own("one_more"), own(low)], [to])]


def _widened(w: Floats, r: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """Weights (4H,F), (4H,H) and biases (1,8H) with two more inputs that count for nothing, and two more units that
    count upwards from 1 and downwards from -1, whatever the input: no cell is further from zero.

    The gates are in ONNX's order: input, output, forget, cell.
    """
    width, columns = r.shape[1], w.shape[1]
    wide_w = np.zeros((4, width + 2, columns + 2), np.float32)
    wide_r = np.zeros((4, width + 2, width + 2), np.float32)
    bias = np.zeros((2, 4, width + 2), np.float32)
    wide_w[:, :width, :columns] = w.reshape(4, width, columns)
    wide_r[:, :width, :width] = r.reshape(4, width, width)
    bias[:, :, :width] = b.reshape(2, 4, width)
    bias[0, :, width:] = SATURATED
    bias[0, 3, width + 1] = -SATURATED
    rows = 4 * (width + 2)
    return wide_w.reshape(rows, -1), wide_r.reshape(rows, -1), bias.reshape(1, -1)


def _in_8_bits(name: str, weights: Floats) -> dict[str, npt.NDArray[Any]]:
    """Weights (N,M) as onnxruntime takes them, (1,M,N), with a scale for each of N."""
    scale = np.maximum(np.abs(weights).max(axis=1), np.finfo(np.float32).tiny) / LEVELS
    whole = np.round(weights.T / scale).astype(np.int8)
    return {
        name: whole[None],
        f"{name}_scale": scale[None].astype(np.float32),
        f"{name}_zero": np.zeros_like(scale[None], np.int8),
    }


def _multiplies(node: onnx.NodeProto, weights: dict[str, npt.NDArray[Any]]) -> bool:
    return node.input[1] in weights and weights[node.input[1]].dtype == np.float32


def _fp16(node: onnx.NodeProto, weights: dict[str, npt.NDArray[Any]], prefix: str) -> Part:
    """A product in 16 bits, between casts from and to float32."""
    before, after, constants = list[onnx.NodeProto](), list[onnx.NodeProto](), dict[str, npt.NDArray[Any]]()
    product = onnx.NodeProto()
    product.CopyFrom(node)
    for place, name in _floats(node):
        product.input[place] = f"{prefix}_{place}"
        if name in weights:
            constants[product.input[place]] = weights[name].astype(np.float16)
        else:
            before.append(helper.make_node("Cast", [name], [product.input[place]], to=TensorProto.FLOAT16))
    for place, name in enumerate(node.output):
        if name:
            product.output[place] = f"{prefix}_out_{place}"
            after.append(helper.make_node("Cast", [product.output[place]], [name], to=TensorProto.FLOAT))
    return [*before, product, *after], constants


def _floats(node: onnx.NodeProto) -> Iterator[tuple[int, str]]:
    """The places and names of a product's inputs that are floats: all but an LSTM's lengths."""
    for place, name in enumerate(node.input):
        if name and not (node.op_type == "LSTM" and place == 4):
            yield place, name
