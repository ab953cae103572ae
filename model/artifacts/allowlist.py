"""The allowlist that an ONNX file must pass before it is loaded: one self-contained graph of known operators.

Model files come from a registry that others can write to. External data refers to other files, custom domains run other
code, subgraphs hide operators. So not what is dangerous is listed but what a model needs: of every message of the file
the fields, and the operators. Anything else is refused, and so is what this version of ONNX does not know.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from tidecast.errors import UnsafeModel

MAX_BYTES = 256 << 20
"""The maximum file size."""
DOMAINS = ("", "ai.onnx", "com.microsoft")
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
MICROSOFT = frozenset({"DynamicQuantizeLSTM"})
"""Of onnxruntime's own operators those that models in int8 have; it too only computes on tensors."""
_FIELDS = {
    "ModelProto": "ir_version opset_import producer_name producer_version domain model_version doc_string graph "
    "metadata_props",
    "OperatorSetIdProto": "domain version",
    "StringStringEntryProto": "key value",
    "GraphProto": "name doc_string node initializer input output value_info metadata_props",
    "NodeProto": "name doc_string domain op_type input output attribute metadata_props",
    "AttributeProto": "name doc_string type f i s t floats ints strings",
    "TensorProto": "name doc_string dims data_type data_location float_data int32_data string_data int64_data raw_data "
    "double_data uint64_data metadata_props",
    "ValueInfoProto": "name doc_string type metadata_props",
    "TypeProto": "tensor_type denotation",
    "Tensor": "elem_type shape",
    "TensorShapeProto": "dim",
    "Dimension": "dim_value dim_param denotation",
}
FIELDS = {message: frozenset(names.split()) for message, names in _FIELDS.items()}
"""The fields that each message of a file may have. No tensor refers to another file, no attribute holds a graph."""


def check_model(data: bytes) -> None:
    """Raises UnsafeModel, naming the fault, unless a file's bytes are a self-contained graph of allowed operators."""
    if len(data) > MAX_BYTES:
        raise UnsafeModel(f"{len(data):,} bytes, and {MAX_BYTES:,} is the most")
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        raise UnsafeModel(f"not an ONNX model ({error})") from None
    if not model.HasField("graph"):
        raise UnsafeModel("not an ONNX model (it has no graph)")
    if fault := next(_faults(model), None):
        raise UnsafeModel(fault)


def _faults(message: Message) -> Iterator[str]:
    """What the message, or one within it, holds beyond the allowlist."""
    kind = message.DESCRIPTOR.name
    for unknown in UnknownFieldSet(message):
        yield f"its {kind} has a field {unknown.field_number}, which ONNX does not know"
    yield from _value_faults(message)
    for field, value in message.ListFields():
        if field.name not in FIELDS[kind]:
            yield f"its {kind}{_named(message)} has {field.name}, which no model needs here"
        elif field.message_type is not None:
            for each in value if isinstance(value, Sequence) else [value]:
                yield from _faults(each)


def _value_faults(message: Any) -> Iterator[str]:
    """Values that a field must not have, whose other values are allowed."""
    match message.DESCRIPTOR.name:
        case "NodeProto" if message.op_type not in _operators(message.domain):
            operator = f"{message.domain and message.domain + '.'}{message.op_type}"
            yield f"the operator {operator} is not one that models may have"
        case "OperatorSetIdProto" if message.domain not in DOMAINS:
            yield f"it needs operators of the domain {message.domain!r}"
        case "TensorProto" if message.data_location == onnx.TensorProto.EXTERNAL or message.external_data:
            yield f"the tensor {message.name!r} lies in another file"


def _operators(domain: str) -> frozenset[str]:
    if domain not in DOMAINS:
        return frozenset()
    return MICROSOFT if domain == "com.microsoft" else OPERATORS


def _named(message: Any) -> str:
    name = getattr(message, "op_type", "") or getattr(message, "name", "")
    return f" {name!r}" if name else ""
