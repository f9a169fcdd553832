"""Biases that take back what quantisation was seen to do to the mean of each channel.

What rounding the weights does to a mean can be computed (:mod:`candidates.bias`); what rounding
and clipping the activations does, and what of both comes through the layers before, can only be
seen. So both graphs answer calibration samples, and wherever something is multiplied with a
weight, the bias takes back what the mean of each channel is off (Nagel and others, 2019, section
4.2: "empirical bias correction"). From the input to the output, each with those before corrected:
an error that was taken back is not taken back again behind it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from stoker_builder.candidates.bias import move_bias
from stoker_builder.candidates.pieces import Pieces, Tensor, has_subgraphs
from stoker_builder.candidates.qdq import Floats, QdqGraph
from stoker_builder.kernels.sessions import Session

SAMPLES: Final = 32
"""A mean over the places of an image, or the words of a text, needs few of them."""


def can_be_measured(path: Path) -> bool:
    """Whether a file can be run in pieces."""
    return not has_subgraphs(onnx.load(path))


def measure_biases(
    path: Path, source: Path, samples: Sequence[Mapping[str, Tensor]], scratch: Path
) -> int:
    """Move the biases of a QDQ file so that every channel has the mean that it has in the source.

    Args:
        path: the file; it is written again.
        source: what it was made from.
        samples: some of the calibration samples, :data:`SAMPLES` say.
        scratch: for files that are not needed afterwards.

    Returns:
        How many biases were moved.

    Raises:
        BuildError: one of the files can not be run.
    """
    graph = QdqGraph(path, source)
    layers = [(node, before) for node in graph.model.graph.node if (before := _layer(graph, node))]
    wanted = _means_in(source, [before.output[0] for _, before in layers], samples, scratch)
    pieces = Pieces(graph.model, samples, scratch)
    moved = 0
    for node, before in layers:
        name = node.output[0]
        pieces.run_to(name)
        shift = wanted[before.output[0]] - _mean(pieces.values(name), _axis(node))
        done = move_bias(graph, node, shift)
        if done is None:
            continue
        moved += 1
        if len(node.input) > 2:  # noqa: PLR2004  else its bias is added behind it, and not run yet
            pieces.add(name, _along(done, next(pieces.values(name)).ndim, _axis(node)))
    onnx.save(graph.model, path)
    return moved


def _layer(graph: QdqGraph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """What a node was made from, if its weight is quantised."""
    return None if graph.weight_and_scale(node) is None else graph.before(node)


def _means_in(
    source: Path, names: list[str], inputs: Sequence[Mapping[str, Tensor]], scratch: Path
) -> dict[str, Floats]:
    """The mean of each channel of some tensors of the source."""
    model = onnx.load(source)
    axes = {node.output[0]: _axis(node) for node in model.graph.node if node.output}
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in given)
    watched = scratch / "watched-layers.onnx"
    onnx.save(model, watched)
    session = Session(watched)
    sums: dict[str, Floats] = {}
    for sample in inputs:
        answers = session.run(sample)
        for name in names:
            mean = _mean([answers[name]], axes[name])
            sums[name] = sums[name] + mean if name in sums else mean
    return {name: total / len(inputs) for name, total in sums.items()}


def _axis(node: onnx.NodeProto) -> int:
    return 1 if node.op_type == "Conv" else -1


def _mean(values: Iterable[Tensor], axis: int) -> Floats:
    """Of each channel; every sample counts the same, whatever its size."""
    means = [
        value.mean(
            axis=tuple(i for i in range(value.ndim) if i != axis % value.ndim), dtype=np.float64
        )
        for value in values
    ]
    return np.asarray(np.mean(means, axis=0), np.float64)


def _along(amount: Floats, rank: int, axis: int) -> NDArray[np.float32]:
    shape = [1] * rank
    shape[axis] = -1
    return amount.reshape(shape).astype(np.float32)
