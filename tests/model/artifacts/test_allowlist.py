"""What an ONNX file may hold: ours and plain ones pass; what calls other code or reads other files does not."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from model.artifacts import allowlist
from model.artifacts.allowlist import check_model
from tidecast.errors import UnsafeModel

X, Y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")


def model(*nodes: onnx.NodeProto, weights: onnx.TensorProto | None = None, domain: str = "") -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", [X], [Y], [] if weights is None else [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 1 if domain else 20)])


def external() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    refer(tensor)
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


def sparse(change: Callable[[onnx.SparseTensorProto], object] = lambda _: None) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    made = helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64), "i"), [4])
    change(made)
    return made


def with_a_sparse_initializer() -> onnx.ModelProto:
    made = model(helper.make_node("Add", ["x", "w"], ["y"]))
    made.graph.sparse_initializer.append(sparse())
    return made


def with_a_sparse_value() -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"], sparse_value=sparse(lambda made: refer(made.values)))
    return model(constant, helper.make_node("Add", ["x", "w"], ["y"]))


def refer(tensor: onnx.TensorProto) -> None:
    """Have a tensor's values in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="passwd")


def with_an_unknown_field() -> onnx.ModelProto:
    made = model(helper.make_node("Relu", ["x"], ["y"]))
    made.graph.node[0].MergeFromString(b"\xfa\x3e\x03abc")
    return made


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
        (hidden_in_a_known_operator, "its AttributeProto 'body' has g, "),
        (with_a_function, "its ModelProto has functions, "),
        (with_a_sparse_initializer, "its GraphProto 'graph' has sparse_initializer, "),
        (with_a_sparse_value, "its AttributeProto 'sparse_value' has sparse_tensor, "),
        (with_an_unknown_field, "its NodeProto has a field 1007, which ONNX does not know"),
        (lambda: model(helper.make_node("Relu", ["x"], ["y"]), domain="com.evil"), "domain 'com.evil'"),
        (lambda: model(helper.make_node("Relu", ["x"], ["y"], domain="com.evil")), r"com\.evil\.Relu"),
        (lambda: model(helper.make_node("StringNormalizer", ["x"], ["y"])), "StringNormalizer"),
        (onnx.ModelProto, "not an ONNX model"),
    ],
)
def test_unsafe_models_are_rejected(make: Callable[[], onnx.ModelProto], fault: str) -> None:
    with pytest.raises(UnsafeModel, match=fault):
        check_model(make().SerializeToString())


def fields_of(message: Message, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths from a message to each tensor that may be within it, up to four messages deep."""
    if len(path) == 4:
        return
    for field in message.DESCRIPTOR.fields:
        if field.message_type is onnx.TensorProto.DESCRIPTOR:
            yield (*path, field.name)
        elif field.message_type is not None:
            yield from fields_of(getattr(onnx, field.message_type.name, onnx.TypeProto)(), (*path, field.name))


TENSORS = sorted(fields_of(onnx.ModelProto()))
"""Where a file may hold a tensor: initializers, attributes, sparse ones, those of subgraphs, functions, training."""


@given(place=st.sampled_from(TENSORS), location=st.text(max_size=5), marked=st.booleans(), keys=st.integers(0, 2))
def test_a_reference_to_another_file_is_refused_wherever_it_is(
    place: tuple[str, ...], location: str, marked: bool, keys: int
) -> None:
    made = model(helper.make_node("Relu", ["x"], ["y"]))
    tensor: Any = made
    for name in place:
        inner = getattr(tensor, name)
        tensor = inner if isinstance(inner, Message) else inner.add()
    tensor.SetInParent()
    if marked:
        tensor.data_location = TensorProto.EXTERNAL
    for _ in range(keys if marked else max(1, keys)):
        tensor.external_data.add(key="location", value=location)
    with pytest.raises(UnsafeModel):
        check_model(made.SerializeToString())


def test_plain_model_is_allowed() -> None:
    check_model(model(helper.make_node("Relu", ["x"], ["y"])).SerializeToString())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"])
def test_invalid_onnx_file_is_rejected(content: bytes) -> None:
    with pytest.raises(UnsafeModel, match="not an ONNX model"):
        check_model(content)


def test_oversized_file_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowlist, "MAX_BYTES", 10)
    with pytest.raises(UnsafeModel, match="10 is the most"):
        check_model(model(helper.make_node("Relu", ["x"], ["y"])).SerializeToString())
