"""What an ONNX file is: tensors, operators, weights, and how it is quantised."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import onnx
from pydantic import Field

from stoker_builder.models.onnx_file import load_onnx
from stoker_contract.document import Document
from stoker_contract.names import Count

Style = Literal["none", "QDQ", "integer operators", "dynamic", "mixed"]

_INTEGER_OPS: Final = frozenset(
    {"QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QAttention", "ConvInteger"}
)
_DYNAMIC_OPS: Final = frozenset(
    {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)
_SCALE: Final = 1  # the input of DequantizeLinear that has the scales


class TensorFacts(Document):
    """One input or output; a free dimension keeps its name."""

    name: str
    dtype: str
    shape: tuple[str, ...]


class Quantisation(Document):
    """How a file is quantised.

    Attributes:
        int8_share: of the bytes of the weights, those in eight bits or fewer.
        per_channel: weights with a scale for each channel, and ``per_tensor`` with one.
    """

    style: Style
    int8_share: float
    per_channel: Count = 0
    per_tensor: Count = 0


class FileFacts(Document):
    """One ONNX file.

    Attributes:
        opsets: version of each operator domain.
        operators: how many nodes of each kind, the most frequent first.
        weight_bytes: by element type.
        nodes: by name, what each is, for comparing.
        weights: by name, type, shape and a digest, for comparing.
    """

    file: str
    digest: str
    size_bytes: Count
    ir_version: Count
    producer: str = ""
    opsets: dict[str, int]
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    operators: dict[str, int]
    parameters: Count
    weight_bytes: dict[str, int]
    quantisation: Quantisation
    nodes: dict[str, str] = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)

    @property
    def node_count(self) -> int:
        """How many nodes there are, in subgraphs too."""
        return sum(self.operators.values())


def onnx_facts(path: Path) -> FileFacts:
    """Look at a file without running it.

    Raises:
        BuildError: ``MODEL_MISSING``, ``MODEL_FORMAT``, ``MODEL_TOO_LARGE``, ``EXTERNAL_DATA`` or
            ``UNSUPPORTED_OP``.
    """
    model = load_onnx(path).model
    data = path.read_bytes()
    nodes = list(_nodes(model.graph))
    tensors = list(_tensors(model.graph))
    weight_bytes: Counter[str] = Counter()
    for tensor in tensors:
        weight_bytes[_dtype(tensor.data_type)] += _bytes_of(tensor)
    return FileFacts(
        file=path.name,
        digest=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        inputs=tuple(_value(value) for value in _fed(model.graph)),
        outputs=tuple(_value(value) for value in model.graph.output),
        operators=dict(Counter(_kind(node) for node in nodes).most_common()),
        parameters=sum(math.prod(tensor.dims) for tensor in tensors),
        weight_bytes=dict(weight_bytes.most_common()),
        quantisation=_quantisation(model.graph, nodes, weight_bytes),
        nodes=_described(nodes),
        weights={tensor.name: _weight(tensor) for tensor in tensors if tensor.name},
    )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _fed(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """The inputs that a caller has to give: old files list their weights as well."""
    held = {tensor.name for tensor in graph.initializer}
    yield from (value for value in graph.input if value.name not in held)


def _value(value: onnx.ValueInfoProto) -> TensorFacts:
    kind = value.type.tensor_type
    dims = tuple(dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim)
    return TensorFacts(name=value.name, dtype=_dtype(kind.elem_type), shape=dims)


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"


def _quantisation(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], weight_bytes: Counter[str]
) -> Quantisation:
    kinds = {node.op_type for node in nodes}
    styles: list[Style] = []
    if "DequantizeLinear" in kinds:
        styles.append("QDQ")
    if kinds & _INTEGER_OPS:
        styles.append("integer operators")
    if kinds & _DYNAMIC_OPS or "MatMulInteger" in kinds:
        styles.append("dynamic")
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    scales = [
        sizes[node.input[_SCALE]]
        for node in nodes
        if node.op_type == "DequantizeLinear"
        and node.input[0] in sizes
        and node.input[_SCALE] in sizes
    ]
    total = sum(weight_bytes.values())
    small = sum(size for kind, size in weight_bytes.items() if kind.endswith(("int8", "int4")))
    return Quantisation(
        style="none" if not styles else styles[0] if len(styles) == 1 else "mixed",
        int8_share=small / total if total else 0.0,
        per_channel=sum(scale > 1 for scale in scales),
        per_tensor=sum(scale == 1 for scale in scales),
    )


def _described(nodes: list[onnx.NodeProto]) -> dict[str, str]:
    described = {}
    for number, node in enumerate(nodes):
        attributes = sorted(
            attribute.SerializeToString(deterministic=True) for attribute in node.attribute
        )
        mark = hashlib.sha256(b"".join(attributes)).hexdigest()[:8]
        name = node.name or f"#{number} {node.op_type}"
        flow = f"{', '.join(node.input)} → {', '.join(node.output)}"
        described[name] = f"{_kind(node)}({flow})" + (f" {mark}" if attributes else "")
    return described


def _weight(tensor: onnx.TensorProto) -> str:
    mark = hashlib.sha256(tensor.SerializeToString(deterministic=True)).hexdigest()[:12]
    return f"{_dtype(tensor.data_type)}{list(tensor.dims)} {mark}"


def _dtype(kind: int) -> str:
    try:
        return str(onnx.TensorProto.DataType.Name(kind)).lower()
    except ValueError:
        return f"type {kind}"


def _bytes_of(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) or tensor.ByteSize()
