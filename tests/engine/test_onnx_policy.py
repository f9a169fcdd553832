"""The static policy: what may reach a runtime, decided on bytes alone."""

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Limits
from stoker_contract.onnx_policy import scan_onnx
from support import models

LIMITS = Limits()


def outside() -> TensorProto:
    """A tensor whose data is in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    return tensor


def with_attribute(**attributes: object) -> NodeProto:
    """A node that carries something in an attribute."""
    node = helper.make_node("Thing", [], ["y"])
    node.attribute.extend(helper.make_attribute(*pair) for pair in attributes.items())
    return node


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message, written by hand: the onnx package stops at 100 levels."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2, *length]) + content


def in_initializer(model: ModelProto) -> None:
    model.graph.initializer.append(outside())


def in_attribute(model: ModelProto) -> None:
    model.graph.node.append(with_attribute(value=outside()))


def in_attribute_list(model: ModelProto) -> None:
    model.graph.node.append(with_attribute(values=[outside(), outside()]))


def in_subgraph(model: ModelProto) -> None:
    body = helper.make_graph([], "body", [], [], [outside()])
    model.graph.node.append(with_attribute(body=body))


def in_nested_subgraph(model: ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [outside()])
    body = helper.make_graph([with_attribute(body=inner)], "body", [], [])
    model.graph.node.append(with_attribute(bodies=[body]))


def in_function(model: ModelProto) -> None:
    function = model.functions.add()
    function.name = "f"
    function.node.append(with_attribute(value=outside()))


def in_function_default(model: ModelProto) -> None:
    function = model.functions.add()
    function.name = "f"
    function.attribute_proto.append(helper.make_attribute("value", outside()))


def in_sparse_initializer(model: ModelProto) -> None:
    model.graph.sparse_initializer.append(SparseTensorProto(values=outside(), dims=[1]))


def in_sparse_attribute(model: ModelProto) -> None:
    sparse = SparseTensorProto(indices=outside(), dims=[1])
    model.graph.node.append(with_attribute(sparse_value=sparse))


def without_location(model: ModelProto) -> None:
    tensor = outside()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


def without_entries(model: ModelProto) -> None:
    tensor = outside()
    del tensor.external_data[:]
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    "hide",
    [
        in_initializer,
        in_attribute,
        in_attribute_list,
        in_subgraph,
        in_nested_subgraph,
        in_function,
        in_function_default,
        in_sparse_initializer,
        in_sparse_attribute,
        without_location,
        without_entries,
    ],
)
def test_external_data_is_found_wherever_it_hides(hide: Callable[[ModelProto], None]) -> None:
    """No tensor anywhere may name a file."""
    model = ModelProto.FromString(models.scale(2).data)
    hide(model)

    refused(model.SerializeToString(), "outside the file")


@pytest.mark.parametrize(
    "model", [models.scale(2), models.mlp(), models.conv(), models.dynamic(), models.slow()]
)
def test_honest_models_pass_with_their_facts(model: models.Model) -> None:
    """The facts are those that the onnx package sees."""
    facts = scan_onnx(model.data, LIMITS)

    proto = ModelProto.FromString(model.data)
    assert facts.opset == proto.opset_import[0].version
    assert facts.nodes >= len(proto.graph.node)
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in proto.graph.initializer)
    assert facts.initializer_bytes >= weights
    assert facts.domains == {""}


def test_nodes_of_subgraphs_count_and_so_does_their_depth() -> None:
    """A loop's body is one level deeper, and its nodes are nodes."""
    facts = scan_onnx(models.slow().data, LIMITS)

    assert (facts.nodes, facts.depth) == (5, 2)


@pytest.mark.parametrize("domain", ["custom.ops", "ai.onnx.training", "com.microsoft.nchwc", "\0"])
def test_operators_of_other_domains_are_refused(domain: str) -> None:
    """Only operators that the runtime brings along may be named."""
    model = ModelProto.FromString(models.scale(2).data)
    model.graph.node[0].domain = domain

    refused(model.SerializeToString(), "domain")


def test_an_unused_import_of_another_domain_is_harmless() -> None:
    """Exporters leave imports behind that no node uses."""
    model = ModelProto.FromString(models.scale(2).data)
    model.opset_import.append(helper.make_opsetid("custom.ops", 1))

    assert scan_onnx(model.SerializeToString(), LIMITS).opset == 17


def test_caps_of_the_manifest_hold() -> None:
    """Nodes, depth and weights are capped by what was signed."""
    refused(models.mlp().data, "nodes", Limits(max_nodes=2))
    refused(models.slow().data, "nested deeper", Limits(max_depth=1))
    refused(models.mlp().data, "bytes of weights", Limits(max_initializer_bytes=100))


def test_deep_nesting_ends_at_the_limit_whatever_the_manifest_says() -> None:
    """A file can not exhaust the interpreter's stack."""
    graph = b""
    for _ in range(10_000):
        graph = field(1, field(5, field(6, graph)))  # a graph in an attribute of a node of a graph

    refused(field(7, graph), "nested", Limits(max_depth=1_000_000))


def test_weights_hidden_in_attributes_count() -> None:
    """A constant node is as heavy as an initializer."""
    model = ModelProto.FromString(models.scale(2).data)
    tensor = numpy_helper.from_array(np.zeros(1000, np.float32), "w")
    model.graph.node.append(with_attribute(value=tensor))

    assert scan_onnx(model.SerializeToString(), LIMITS).initializer_bytes >= 4000


def test_training_graphs_are_refused() -> None:
    """What carries training graphs was not exported for inference."""
    model = ModelProto.FromString(models.scale(2).data)
    model.training_info.add()

    refused(model.SerializeToString(), "training")


@pytest.mark.parametrize(
    "data", [b"", b"hello, world", b"\x00" * 64, b"\xff" * 64, b"\x3a\xff\x01"]
)
def test_what_is_not_a_model_is_refused(data: bytes) -> None:
    """Anything else than ONNX is refused with the same code."""
    refused(data, "not a|cut short|no valid number|no graph")


def test_every_prefix_of_a_model_is_judged_without_another_error() -> None:
    """A file that was cut anywhere is either whole enough or refused."""
    data = models.slow().data
    for length in range(len(data)):
        scans_or_refuses(data[:length])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=512))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    """Whatever the bytes are, only our own error comes out."""
    scans_or_refuses(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_models_raise_nothing_else(data: st.DataObject) -> None:
    """Nor does it for a real model with bytes changed."""
    model = bytearray(models.slow().data)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(model) - 1))
        model[place] = data.draw(st.integers(0, 255))

    scans_or_refuses(bytes(model))


def scans_or_refuses(data: bytes) -> None:
    """Scan, and let only our own error pass."""
    with contextlib.suppress(ContractError):
        scan_onnx(data, LIMITS)


def refused(data: bytes, why: str, limits: Limits = LIMITS) -> None:
    """Assert that a file is refused, and for this reason."""
    with pytest.raises(ContractError, match=why) as caught:
        scan_onnx(memoryview(data), limits)
    assert caught.value.code is ReasonCode.UNSAFE_MODEL
