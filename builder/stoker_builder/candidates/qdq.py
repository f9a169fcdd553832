"""A quantised graph beside the one it was made from: which whole numbers stand for which weight."""

from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_SUFFIX: Final = "_quantized"

Floats = NDArray[np.float64]


class QdqGraph:
    """A QDQ model whose weights can be read and replaced.

    Args:
        path: the quantised file.
        source: the file it was made from, which has the weights in floating point.
    """

    def __init__(self, path: Path, source: Path) -> None:
        self.model = onnx.load(path)
        graph, before = self.model.graph, onnx.load(source).graph
        self._held = {tensor.name: tensor for tensor in graph.initializer}
        self._floats = {tensor.name: tensor for tensor in before.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._before = {node.name: node for node in before.node if node.name}
        self.uses = Counter(name for node in graph.node for name in node.input)

    def before(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node that this one was made from."""
        return self._before.get(node.name)

    def weight_and_scale(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """The tensors that a node's weight is held in; None when it is not quantised."""
        if node.op_type == "MatMulInteger":
            name = node.input[1]
            names = name, f"{name.removesuffix(_SUFFIX)}_scale"
            return names if self._held.keys() >= set(names) else None
        dequantise = self.dequantised(node, 1)
        if node.op_type not in {"Conv", "Gemm", "MatMul"} or dequantise is None:
            return None
        return dequantise.input[0], dequantise.input[1]

    def weight_before(self, quantised: str) -> Floats | None:
        """The weight that a tensor of whole numbers stands for."""
        tensor = self._floats.get(quantised.removesuffix(_SUFFIX))
        return None if tensor is None else numpy_helper.to_array(tensor).astype(np.float64)

    def dequantised(self, node: onnx.NodeProto, position: int) -> onnx.NodeProto | None:
        """What brings an input back to floating point, if its numbers are in the file."""
        if len(node.input) <= position:
            return None
        maker = self._makers.get(node.input[position])
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        known = maker.input[1] in self._held and (position == 0 or maker.input[0] in self._held)
        return maker if known else None

    def holds(self, name: str) -> bool:
        """Whether a tensor is in the file."""
        return name in self._held

    def values(self, name: str) -> Floats:
        """A tensor that is in the file."""
        return numpy_helper.to_array(self._held[name]).astype(np.float64)

    def replace(self, name: str, values: NDArray[np.generic]) -> None:
        """Put other numbers in a tensor's place; its type and shape become theirs."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        self._held[name].CopyFrom(tensor)


def is_row_major(node: onnx.NodeProto) -> bool:
    """Whether the first axis of the weight is the output channel."""
    transposed = next((a.i for a in node.attribute if a.name == "transB"), 0)
    return node.op_type == "Conv" or bool(transposed)
