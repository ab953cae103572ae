"""What an ONNX file may hold: ours and plain ones pass; what calls other code or reads other files does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.artifacts import allowlist
from model.artifacts.allowlist import check_file
from tidecast.errors import UnsafeModel

X, Y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")


def model(*nodes: onnx.NodeProto, weights: onnx.TensorProto | None = None, domain: str = "") -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", [X], [Y], [] if weights is None else [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 1 if domain else 20)])


def external() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model(helper.make_node("Add", ["x", "w"], ["y"]), weights=tensor)


def in_an_attribute() -> onnx.ModelProto:
    value = external().graph.initializer[0]
    constant = helper.make_node("Constant", [], ["w"], value=value)
    return model(constant, helper.make_node("Add", ["x", "w"], ["y"]))


def with_a_subgraph() -> onnx.ModelProto:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "branch", [], [Y])
    return model(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


def hidden_in_a_known_operator() -> onnx.ModelProto:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "branch", [], [Y])
    return model(helper.make_node("Relu", ["x"], ["y"], body=branch))


def with_a_function() -> onnx.ModelProto:
    made = model(helper.make_node("Relu", ["x"], ["y"]))
    relu, opset = helper.make_node("Relu", ["x"], ["y"]), helper.make_opsetid("", 20)
    made.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [relu], [opset]))
    return made


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (external, "'w' lies in another file"),
        (in_an_attribute, "'w' lies in another file"),
        (with_a_subgraph, "the operator If"),
        (hidden_in_a_known_operator, "Relu has a graph within"),
        (with_a_function, "functions of its own"),
        (lambda: model(helper.make_node("Relu", ["x"], ["y"]), domain="com.evil"), "domain 'com.evil'"),
        (lambda: model(helper.make_node("Relu", ["x"], ["y"], domain="com.evil")), r"com\.evil\.Relu"),
        (lambda: model(helper.make_node("StringNormalizer", ["x"], ["y"])), "StringNormalizer"),
    ],
)
def test_unsafe_models_are_rejected(tmp_path: Path, make: Callable[[], onnx.ModelProto], fault: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(UnsafeModel, match=fault):
        check_file(path)


def test_plain_model_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(helper.make_node("Relu", ["x"], ["y"])), path)
    check_file(path)


@pytest.mark.parametrize("content", [b"nonsense", b"\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"])
def test_invalid_onnx_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UnsafeModel, match="not an ONNX model"):
        check_file(path)


def test_oversized_file_is_rejected_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(helper.make_node("Relu", ["x"], ["y"])), path)
    monkeypatch.setattr(allowlist, "MAX_BYTES", 10)
    with pytest.raises(UnsafeModel, match="10 is the most"):
        check_file(path)
