"""Running a graph in pieces: every sample goes through one piece before any goes through the next.

What is still to be run may be changed in between, so that a change near the input is felt by
everything behind it without running the whole again. Only what is still needed is kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from stoker_builder.kernels.sessions import Session

Tensor = NDArray[np.generic]


class Pieces:
    """A model, and how far the samples have come in it.

    Args:
        model: without subgraphs, see :func:`has_subgraphs`; its tensors may be replaced meanwhile.
        samples: the inputs of each.
        scratch: for the file of a piece.
    """

    def __init__(
        self, model: onnx.ModelProto, samples: Sequence[Mapping[str, Tensor]], scratch: Path
    ) -> None:
        self._model = model
        self._path = scratch / "piece.onnx"
        self._left = list(model.graph.node)
        self._live = [dict(sample) for sample in samples]

    def run_to(self, name: str) -> None:
        """Run what a tensor depends on and did not run yet."""
        wanted = {name}
        piece: list[onnx.NodeProto] = []
        for node in reversed(self._left):
            if wanted & set(node.output):
                wanted |= set(node.input)
                piece.append(node)
        if not piece:
            return
        chosen = {id(node) for node in piece}
        self._left = [node for node in self._left if id(node) not in chosen]
        self._run(piece[::-1], {name} | self._needed())

    def values(self, name: str) -> Iterator[Tensor]:
        """A tensor that was run to, of each sample."""
        return (live[name] for live in self._live)

    def add(self, name: str, amount: NDArray[np.float32]) -> None:
        """Add to a tensor of floats that was run to, as if it had been made so."""
        for live in self._live:
            live[name] = np.add(live[name], amount, dtype=np.float32)

    def _needed(self) -> set[str]:
        read = {name for node in self._left for name in node.input}
        return read | {output.name for output in self._model.graph.output}

    def _run(self, nodes: list[onnx.NodeProto], kept: set[str]) -> None:
        made = {name for node in nodes for name in node.output if name}
        read = {name for node in nodes for name in node.input} - made
        inputs = sorted(read & self._live[0].keys())
        outputs = sorted(made & kept)
        onnx.save(self._piece(nodes, inputs, outputs), self._path)
        session = Session(self._path)
        for live in self._live:
            live.update(session.run({name: live[name] for name in inputs}))
            for name in live.keys() - kept:
                del live[name]

    def _piece(
        self, nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]
    ) -> onnx.ModelProto:
        read = {name for node in nodes for name in node.input}
        example = self._live[0]
        typed = {name: onnx.helper.np_dtype_to_tensor_dtype(example[name].dtype) for name in inputs}
        graph = onnx.helper.make_graph(
            nodes,
            "piece",
            # another sample may have another shape: only the number of axes is the same
            [
                onnx.helper.make_tensor_value_info(name, kind, [None] * example[name].ndim)
                for name, kind in typed.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [tensor for tensor in self._model.graph.initializer if tensor.name in read],
        )
        return onnx.helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )


def has_subgraphs(model: onnx.ModelProto) -> bool:
    """Whether a node of a graph holds another graph, which reads tensors that it does not name."""
    return any(
        attribute.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
        for node in model.graph.node
        for attribute in node.attribute
    )
