"""The static policy for ONNX files: what may reach a runtime, decided on bytes alone.

A device has no ``onnx`` package, and a parser is attack surface: this reads the protobuf wire
format directly, walks every graph, subgraph, function and tensor, and refuses

* data outside the file, wherever a tensor can name it;
* operators of a domain that the runtime does not bring along;
* more nodes, deeper nesting or more weights than the signed manifest allows.

One pass, linear in the number of fields, which is capped; recursion is bounded by the depth
limit; weights are skipped, never copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Limits

ALLOWED_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_FIELDS: Final = 4_000_000
MAX_DEPTH: Final = 64  # whatever a manifest says: the interpreter's stack is finite
MAX_DOMAIN_BYTES: Final = 256

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_TAG: Final = 2**32 - 1
_LOW_32_BITS: Final = 2**32 - 1

# Field numbers of onnx.proto.
_MODEL_IR, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTION = 1, 7, 8, 20, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_ATTRIBUTE = 7, 10, 11
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_TENSOR_DATA: Final = frozenset({4, 5, 6, 7, 9, 10, 11})

_Field = tuple[int, int, int, memoryview]  # number, wire type, varint value, bytes


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What the scan saw. ``opset`` is that of the default domain, 0 when there is none."""

    nodes: int
    depth: int
    initializer_bytes: int
    functions: int
    opset: int
    domains: frozenset[str]


def scan_onnx(data: bytes | memoryview, limits: Limits) -> OnnxFacts:
    """Look through an ONNX file before any runtime sees it.

    Raises:
        ContractError: ``UNSAFE_MODEL``, whatever the bytes are.
    """
    scan = _Scan(limits)
    try:
        scan.model(memoryview(data).cast("B"))
        return scan.facts()
    except ContractError as error:
        refusal = error.with_traceback(None)
    # Raised afresh: the frames of the scan hold views, and a caller could not close its mapping.
    raise refusal


@dataclass(slots=True)
class _Scan:
    limits: Limits
    nodes: int = 0
    depth: int = 0
    initializer_bytes: int = 0
    functions: int = 0
    graphs: int = 0
    opset: int = 0
    fields: int = 0
    domains: set[str] = field(default_factory=set)

    def facts(self) -> OnnxFacts:
        if self.graphs == 0:
            _refuse("the file has no graph: it is not an ONNX model")
        return OnnxFacts(
            nodes=self.nodes,
            depth=self.depth,
            initializer_bytes=self.initializer_bytes,
            functions=self.functions,
            opset=self.opset,
            domains=frozenset(self.domains),
        )

    def model(self, data: memoryview) -> None:
        for number, wire, _, value in self._fields(data):
            if wire != _BYTES:
                continue
            if number == _MODEL_GRAPH:
                self.graphs += 1
                self._graph(value, depth=1)
            elif number == _MODEL_OPSET:
                self._opset(value)
            elif number == _MODEL_FUNCTION:
                self.functions += 1
                self._function(value)
            elif number == _MODEL_TRAINING:
                _refuse("the file carries training graphs; export it for inference")

    def _opset(self, data: memoryview) -> None:
        # A domain that is imported but not used is harmless; exporters leave many of them.
        domain, version = "", 0
        for number, wire, integer, value in self._fields(data):
            if number == _OPSET_DOMAIN and wire == _BYTES:
                domain = _text(value)
            elif number == _OPSET_VERSION and wire == _VARINT:
                version = integer
        if domain in {"", "ai.onnx"}:
            self.opset = version

    def _graph(self, data: memoryview, depth: int) -> None:
        self._enter(depth)
        for number, wire, _, value in self._fields(data):
            if wire != _BYTES:
                continue
            if number == _GRAPH_NODE:
                self._node(value, depth)
            elif number == _GRAPH_INITIALIZER:
                self._tensor(value)
            elif number == _GRAPH_SPARSE:
                self._sparse(value)

    def _function(self, data: memoryview) -> None:
        self._enter(1)
        for number, wire, _, value in self._fields(data):
            if wire != _BYTES:
                continue
            if number == _FUNCTION_NODE:
                self._node(value, depth=1)
            elif number == _FUNCTION_ATTRIBUTE:
                self._attribute(value, depth=1)
            elif number == _FUNCTION_DOMAIN:
                self._domain(value)

    def _node(self, data: memoryview, depth: int) -> None:
        self.nodes += 1
        if self.nodes > self.limits.max_nodes:
            _refuse(f"more than {self.limits.max_nodes} nodes")
        domain = data[:0]
        for number, wire, _, value in self._fields(data):
            if wire != _BYTES:
                continue
            if number == _NODE_ATTRIBUTE:
                self._attribute(value, depth)
            elif number == _NODE_DOMAIN:
                # Of a repeated field a parser takes the last one: every one must be allowed.
                self._domain(value)
                domain = value
        self._domain(domain)

    def _attribute(self, data: memoryview, depth: int) -> None:
        for number, wire, _, value in self._fields(data):
            if wire != _BYTES:
                continue
            if number in {_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS}:
                self._tensor(value)
            elif number in {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS}:
                self._graph(value, depth + 1)
            elif number in {_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES}:
                self._sparse(value)

    def _sparse(self, data: memoryview) -> None:
        for number, wire, _, value in self._fields(data):
            if wire == _BYTES and number in {_SPARSE_VALUES, _SPARSE_INDICES}:
                self._tensor(value)

    def _tensor(self, data: memoryview) -> None:
        for number, wire, integer, value in self._fields(data):
            if number == _TENSOR_EXTERNAL:
                _refuse("a tensor keeps its data outside the file")
            if number == _TENSOR_LOCATION and integer & _LOW_32_BITS:
                _refuse("a tensor says that its data lies outside the file")
            if number in _TENSOR_DATA:
                self.initializer_bytes += len(value) if wire == _BYTES else 8
        if self.initializer_bytes > self.limits.max_initializer_bytes:
            _refuse(f"more than {self.limits.max_initializer_bytes} bytes of weights")

    def _domain(self, data: memoryview) -> None:
        domain = _text(data)
        if domain not in ALLOWED_DOMAINS:
            _refuse(f"operators of the domain {domain!r} are not allowed")
        self.domains.add(domain)

    def _enter(self, depth: int) -> None:
        allowed = min(self.limits.max_depth, MAX_DEPTH)
        if depth > allowed:
            _refuse(f"graphs are nested deeper than {allowed} levels")
        self.depth = max(self.depth, depth)

    def _fields(self, data: memoryview) -> Iterator[_Field]:
        at, end = 0, len(data)
        nothing = data[:0]
        while at < end:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                _refuse(f"more than {MAX_FIELDS} fields")
            tag, at = _varint(data, at)
            if tag > _MAX_TAG or tag < 8:  # noqa: PLR2004 - three bits of wire type, field 0 is illegal
                _refuse("not a protobuf message: a field has no valid number")
            number, wire = tag >> 3, tag & 7
            integer, value = 0, nothing
            if wire == _VARINT:
                integer, at = _varint(data, at)
            elif wire == _BYTES:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            elif wire in {_FIXED64, _FIXED32}:
                at += 8 if wire == _FIXED64 else 4
            else:
                _refuse("not a protobuf message: groups are not used by ONNX")
            if at > end:
                _refuse("not a protobuf message: a field is cut short")
            yield number, wire, integer, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                return value, at
            shift += 7
            if shift > 63:  # noqa: PLR2004 - ten bytes are the longest integer there is
                _refuse("not a protobuf message: an integer is longer than ten bytes")
    except IndexError:
        raise ContractError(
            ReasonCode.UNSAFE_MODEL, "not a protobuf message: an integer is cut short"
        ) from None


def _text(data: memoryview) -> str:
    if len(data) > MAX_DOMAIN_BYTES:
        _refuse("the name of a domain is longer than 256 bytes")
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        raise ContractError(ReasonCode.UNSAFE_MODEL, "the name of a domain is not UTF-8") from None


def _refuse(detail: str) -> NoReturn:
    raise ContractError(ReasonCode.UNSAFE_MODEL, detail)
