"""Walking an ONNX model: its graphs, those inside control flow, and its local functions."""

from collections.abc import Iterable, Iterator

import onnx


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Every graph, those of loops and branches included."""
    yield model.graph
    yield from _inner(model.graph.node)
    for function in model.functions:
        yield from _inner(function.node)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of local functions included."""
    for graph in graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant: initializers, dense and sparse, and those in attributes."""
    for graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    attributes = [attribute for node in nodes(model) for attribute in node.attribute]
    attributes += [a for function in model.functions for a in function.attribute_proto]
    for attribute in attributes:
        yield from attribute.tensors
        if attribute.HasField("t"):
            yield attribute.t
        held = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for sparse in (*attribute.sparse_tensors, *held):
            yield from (sparse.values, sparse.indices)


def names(model: onnx.ModelProto) -> Iterator[str | bytes]:
    """Every name; the parser leaves one as bytes when it is not UTF-8."""
    for node in nodes(model):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    for graph in graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield value.name
            yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in tensors(model))


def strip(model: onnx.ModelProto) -> None:
    """Remove what exporters write for debugging, in place.

    Stack traces name files of the machine that exported, and make two exports of one model
    differ. What the model's author put on the model itself stays.
    """
    for graph in graphs(model):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for value in (*graph.input, *graph.output, *graph.value_info):
            value.doc_string = ""
            del value.metadata_props[:]
    for node in nodes(model):
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in tensors(model):
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def opset_of(model: onnx.ModelProto) -> int:
    """The opset of the standard operators."""
    return max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=0)


def _inner(held: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    # the parser takes no more than a hundred levels, so this ends
    for node in held:
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield graph
                yield from _inner(graph.node)
