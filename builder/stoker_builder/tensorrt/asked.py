"""What a quantised graph asks a compiler for, which is all that is known without its GPU. Pure."""

from collections.abc import Iterator
from typing import Final

import onnx

from stoker_builder.candidates.audit import Audit, FloatNode, Kernel, count

_OPERANDS: Final = 2


def asked_for(model: onnx.ModelProto) -> Audit:
    """Count the multiplications that may run in integers: those of two dequantised tensors.

    A strongly typed compiler fuses the one with the other where it has such a kernel. Whether it
    has, only the engine on its GPU tells.
    """
    named = _named(model)
    nodes = {f"{node.op_type} {node.name}": node for node in named.graph.node}
    makers = {output: node.op_type for node in named.graph.node for output in node.output}
    counted = count(named, dict(_kernels(named)))
    floating: list[FloatNode] = []
    quantised = 0
    for found in counted.float_nodes:
        operands = nodes[found.name].input[:_OPERANDS]
        if all(makers.get(name) == "DequantizeLinear" for name in operands):
            quantised += found.macs
        else:
            floating.append(found)
    return Audit(quantised, tuple(floating), counted.uncounted, transposes=0)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with all the shapes that can be inferred, whose nodes have names of their own."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for index, node in enumerate(inferred.graph.node):
        node.name = f"{node.name or node.output[0]}" if node.name else f"{node.output[0]}#{index}"
    return inferred


def _kernels(model: onnx.ModelProto) -> Iterator[tuple[str, Kernel]]:
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if all(dims):
            shapes[value.name] = tuple(dims)
    for node in graph.node:
        if node.output[0] in shapes:
            inputs = tuple(shapes.get(name, ()) for name in node.input)
            yield node.name, Kernel(inputs, shapes[node.output[0]])
