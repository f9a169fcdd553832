"""Taking quantisation back for some nodes of a QDQ graph, and leaving it for the others.

A node computes in floating point again when it reads the tensors in front of their "quantise,
dequantise" pairs and its weights as they were. What reads its output may still quantise it, but
not the model's own output. An activation that the quantiser dropped, because the range of a pair
did its work, comes back with whoever reads behind it.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import onnx

_PAIR: Final = ("QuantizeLinear", "DequantizeLinear")
_SUFFIX: Final = "_quantized"
_DROPPED: Final = ("Relu", "Clip")


class Reverter:
    """A quantised file, and what it was made from.

    Args:
        path: the QDQ file.
        source: the file it was made from, which has weights and biases in floating point.
    """

    def __init__(self, path: Path, source: Path) -> None:
        self._model = onnx.load(path)
        before = onnx.load(source).graph
        self._floats = {tensor.name: tensor for tensor in before.initializer}
        self._sources = {name: node for node in before.node for name in node.output if name}
        self._makers = {
            name: node for node in self._model.graph.node for name in node.output if name
        }
        self._names = {node.name for node in self._model.graph.node}

    @property
    def nodes(self) -> dict[str, str]:
        """The quantised nodes in the order of the graph: name to operator."""
        return {
            node.name: node.op_type
            for node in self._model.graph.node
            if node.op_type not in _PAIR and any(map(self._dequantise, node.input))
        }

    def save(self, path: Path, reverted: Collection[str]) -> None:
        """Write the file with some of its nodes in floating point."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        made: set[str] = set()
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if node.name in reverted and node.op_type not in _PAIR:
                nodes += self._revert(graph, node, made)
                self._answer_directly(graph, node)
            nodes.append(node)
        kept, wanted = _what_is_read(nodes, graph)
        tensors = [tensor for tensor in graph.initializer if tensor.name in wanted]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(kept)
        graph.initializer.extend(tensors)
        onnx.save(model, path)

    def _revert(
        self, graph: onnx.GraphProto, node: onnx.NodeProto, made: set[str]
    ) -> Iterator[onnx.NodeProto]:
        """Let a node read floating point; yields what has to come before it."""
        for position, name in enumerate(node.input):
            if (activation := self._activation(name)) is not None:
                dropped = self._dropped(activation)
                node.input[position] = activation if dropped is None else f"{activation}:activated"
                if dropped is not None and activation not in made:
                    made.add(activation)
                    yield self._brought_back(graph, dropped, activation)
            elif (weight := self._weight(name)) is not None:
                # under a name of its own: the dequantised one may have the old name, and
                # optimisers stumble over tensors that several nodes share
                node.input[position] = _hold(graph, weight, f"{node.name}:{position}:float")

    def _brought_back(
        self, graph: onnx.GraphProto, dropped: onnx.NodeProto, activation: str
    ) -> onnx.NodeProto:
        node = onnx.NodeProto()
        node.CopyFrom(dropped)
        node.input[0], node.output[0] = activation, f"{activation}:activated"
        for position, name in enumerate(node.input):
            if name in self._floats:
                limit = self._floats[name]
                node.input[position] = _hold(graph, limit, f"{dropped.name}:{position}:float")
        return node

    def _answer_directly(self, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        """Take away a pair between a node and an output of the model."""
        answers = {output.name for output in graph.output}
        readers = {name: other for other in graph.node for name in other.input}
        for position, name in enumerate(node.output):
            quantise = readers.get(name)
            dequantise = readers.get(quantise.output[0]) if quantise is not None else None
            if quantise is None or dequantise is None or quantise.op_type != "QuantizeLinear":
                continue
            answer = dequantise.output[0]
            source = self._sources.get(answer)
            if answer in answers and source is not None and source.name == node.name:
                node.output[position] = answer
                dequantise.output[0] = f"{name}:unused"

    def _activation(self, name: str) -> str | None:
        """The activation that a dequantised tensor stands for; None when it is not one."""
        dequantise = self._dequantise(name)
        quantise = self._makers.get(dequantise.input[0]) if dequantise is not None else None
        if quantise is None or quantise.op_type != "QuantizeLinear":
            return None
        return str(quantise.input[0])

    def _dropped(self, activation: str) -> onnx.NodeProto | None:
        """The node that made a tensor before, if the quantiser left it out."""
        source = self._sources.get(activation)
        gone = source is not None and source.name not in self._names
        return source if gone and source is not None and source.op_type in _DROPPED else None

    def _weight(self, name: str) -> onnx.TensorProto | None:
        """The weight or bias that a dequantised tensor stands for; None when it is not one."""
        dequantise = self._dequantise(name)
        if dequantise is None:
            return None
        return self._floats.get(dequantise.input[0].removesuffix(_SUFFIX))

    def _dequantise(self, name: str) -> onnx.NodeProto | None:
        maker = self._makers.get(name)
        return maker if maker is not None and maker.op_type == "DequantizeLinear" else None


def _hold(graph: onnx.GraphProto, tensor: onnx.TensorProto, name: str) -> str:
    held = graph.initializer.add()
    held.CopyFrom(tensor)
    held.name = name
    return name


def _what_is_read(
    nodes: list[onnx.NodeProto], graph: onnx.GraphProto
) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that an output depends on, in order, and every tensor that is read."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1], wanted
