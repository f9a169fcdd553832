"""The graph that candidates are quantised from: as the source, in a form that quantisers know."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from stoker_builder.models.onnx_parts import nodes


def prepared(source: Path, scratch: Path, *, as_exported: bool = False) -> Path:
    """The file that candidates are quantised from, in ``scratch``: every node has a name.

    Args:
        source: the model.
        scratch: where the file is made, once.
        as_exported: leave the graph as it is. Otherwise constants and padding are folded,
            without which a quantised graph can be half as fast again in ONNX Runtime.
    """
    path = scratch / ("exported.onnx" if as_exported else "prepared.onnx")
    if not path.exists():
        quant_pre_process(
            str(source), str(path), skip_symbolic_shape=True, skip_optimization=as_exported
        )
        model = onnx.load(path)
        _name_every_node(model.graph)
        _fold_factors(model)
        onnx.save(model, path)
    return path


def _name_every_node(graph: onnx.GraphProto) -> None:
    """Give unnamed nodes a name: they are excluded and reported by it."""
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"


def _fold_factors(model: onnx.ModelProto) -> None:
    """Multiply weights and biases of a Gemm with its alpha and beta.

    ONNX Runtime's quantiser takes both for 1 when it chooses the scale of the bias.
    """
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    replaced = set()
    for node in graph.node:
        if node.op_type != "Gemm":
            continue
        for position, factor in ((1, "alpha"), (2, "beta")):
            given = next((a for a in node.attribute if a.name == factor), None)
            tensor = held.get(node.input[position]) if len(node.input) > position else None
            if given is None or given.f == 1 or tensor is None:
                continue
            values = numpy_helper.to_array(tensor)
            if not np.issubdtype(values.dtype, np.floating):
                continue
            name = f"{node.name}_{tensor.name}_times_{factor}"  # others may use it as it is
            scaled = np.asarray(values * values.dtype.type(given.f))
            graph.initializer.append(numpy_helper.from_array(scaled, name))
            node.input[position] = name
            node.attribute.remove(given)
            replaced.add(tensor.name)
    read = {name for node in nodes(model) for name in node.input}
    for name in replaced - read - {output.name for output in graph.output}:
        graph.initializer.remove(held[name])
