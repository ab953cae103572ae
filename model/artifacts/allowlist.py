"""The allowlist that an ONNX file must pass before it is loaded: one self-contained graph of known operators.

Model files come from a registry that others can write to. External data refers to other files, custom domains run other
code, subgraphs hide operators: none is needed here, so all are rejected.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tidecast.errors import UnsafeModel

MAX_BYTES = 256 << 20
"""The maximum file size."""
DOMAINS = ("", "ai.onnx")
_NAMES = (
    # arithmetic
    "Abs Add Ceil Clip Cos Div Erf Exp Floor Log Max Mean Min Mod Mul Neg Pow Reciprocal Round Sign Sin Sqrt Sub Sum "
    # comparison and choice
    "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Where Xor "
    # activations and normalisation
    "BatchNormalization Elu Gelu HardSigmoid HardSwish InstanceNormalization LayerNormalization LeakyRelu LogSoftmax "
    "PRelu RMSNormalization Relu Selu Sigmoid Softmax Softplus Softsign Swish Tanh ThresholdedRelu "
    # layers
    "AveragePool Conv Dropout Einsum GRU Gemm GlobalAveragePool GlobalMaxPool LSTM MatMul MaxPool RNN "
    # reductions and order
    "ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare TopK "
    # shapes and places
    "Cast CastLike Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity "
    "OneHot Pad Range Reshape ScatterElements ScatterND Shape Size Slice Split Squeeze Tile Transpose Trilu "
    "Unsqueeze"
)
OPERATORS = frozenset(_NAMES.split())
"""Standard operators that only compute on tensors."""
GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def check_file(path: Path) -> None:
    """Raises UnsafeModel, naming the fault, unless the file is a self-contained graph of allowed operators."""
    if path.stat().st_size > MAX_BYTES:
        raise UnsafeModel(f"{path.stat().st_size:,} bytes, and {MAX_BYTES:,} is the most")
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise UnsafeModel(f"not an ONNX model ({error})") from None
    if fault := next(_faults(model), None):
        raise UnsafeModel(fault)


def _faults(model: onnx.ModelProto) -> Iterator[str]:
    for domain in (each.domain for each in model.opset_import):
        if domain not in DOMAINS:
            yield f"it needs operators of the domain {domain!r}"
    if model.functions or model.training_info:
        yield "it defines functions of its own"
    for tensor in model.graph.initializer:
        yield from _external(tensor)
    if model.graph.sparse_initializer:
        yield "it has sparse initializers"
    for node in model.graph.node:
        yield from _node_faults(node)


def _node_faults(node: onnx.NodeProto) -> Iterator[str]:
    if node.domain not in DOMAINS or node.op_type not in OPERATORS:
        yield f"the operator {node.domain and node.domain + '.'}{node.op_type} is not one that models may have"
    for attribute in node.attribute:
        if attribute.type in GRAPHS:
            yield f"{node.op_type} has a graph within"
        for tensor in (attribute.t, *attribute.tensors):
            yield from _external(tensor)


def _external(tensor: onnx.TensorProto) -> Iterator[str]:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        yield f"{tensor.name!r} lies in another file"
