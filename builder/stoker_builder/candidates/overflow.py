"""Weights whose products can not overflow where x86 has no VNNI.

Without VNNI, x86 multiplies unsigned by signed bytes with VPMADDUBSW, which adds *pairs* of
neighbouring products into sixteen bits, with saturation: 255 * (127 + 127) does not fit. Halving
the range of all weights (seven bits) is the usual remedy, and costs twice the rounding error.
It is far more than is needed: what has to fit is each pair, 255 * (a + b) <= 32767, so a + b
may be 128 where both have the same sign, and the weight beside a large one is seldom large too.

So a scale is searched for each output channel that leaves the least error when the few pairs
that are too large are trimmed. Most channels keep nearly all of their eight bits.

Neighbours are those along the input channels (blocked and channels-last kernels) and those in
the order of the file (im2col). Depthwise kernels multiply in sixteen bits and need none of it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from stoker_builder.candidates.qdq import QdqGraph, is_row_major

LARGEST_PAIR: Final = 128  # 255 * 128 <= 32767
_LARGEST: Final = 127
# how much coarser than eight bits a channel may become; twice is seven bits
_FACTORS: Final = np.linspace(1.0, 2.05, 22)
_CONVOLUTION_RANK: Final = 3  # a weight is [out, in / groups, spatial...]

Pairs = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
Matrix = NDArray[np.float64]


def is_depthwise(shape: Sequence[int]) -> bool:
    """Whether a convolution with such a weight has one input channel for each output."""
    return len(shape) >= _CONVOLUTION_RANK and shape[1] == 1 and shape[0] > 1


def make_overflow_free(quantised: Path, source: Path, target: Path) -> int:
    """Quantise the weights of a QDQ file again, so that no pair can overflow.

    Args:
        quantised: a QDQ file, or one whose activations are quantised while it runs, with
            signed weights per channel.
        source: the file it was made from, which has the weights in floating point.
        target: where to write the result; activations are as they were.

    Returns:
        How many weights were changed.
    """
    graph = QdqGraph(quantised, source)
    changed = sum(_mend(graph, node) for node in graph.model.graph.node)
    onnx.save(graph.model, target)
    return changed


def quantise_in_pairs(weights: Matrix, pairs: Pairs) -> tuple[NDArray[np.int8], Matrix]:
    """Quantise each row with the scale that leaves the least error and no pair too large.

    Args:
        weights: one row for each output channel.
        pairs: positions within a row that are added to each other.

    Returns:
        The whole numbers, and the scale of each row.
    """
    largest = np.maximum(np.abs(weights).max(axis=1), np.finfo(np.float32).tiny)
    best = np.zeros(weights.shape, np.int8)
    scales = largest / _LARGEST
    errors = np.full(len(weights), np.inf)
    for factor in _FACTORS:
        scale = largest * factor / _LARGEST
        whole = np.clip(np.round(weights / scale[:, None]), -_LARGEST, _LARGEST)
        trim(whole, pairs)
        error = ((whole * scale[:, None] - weights) ** 2).sum(axis=1)
        better = error < errors
        best[better], scales[better], errors[better] = whole[better], scale[better], error[better]
    return best, scales


def trim(whole: Matrix, pairs: Pairs) -> None:
    """Bring both weights of a pair that is too large nearer to zero, in place."""
    for one, other in pairs:
        for sign in (1, -1):
            first = np.maximum(sign * whole[:, one], 0)
            second = np.maximum(sign * whole[:, other], 0)
            excess = np.maximum(first + second - LARGEST_PAIR, 0)
            from_second = np.minimum(np.floor(excess / 2), second)
            whole[:, one] -= sign * (excess - from_second)
            whole[:, other] -= sign * from_second


def convolution_pairs(channels: int, kernel: int) -> Pairs:
    """Which weights of ``[channels, kernel]`` meet, in either order that kernels walk them."""
    places = np.arange(channels * kernel).reshape(channels, kernel)
    return list(_neighbours([places.T.reshape(-1), places.reshape(-1), *_odd_rows(places)]))


def _odd_rows(places: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """With an odd number of channels, each kernel position may begin a block of its own."""
    if len(places) % 2 and len(places) > 1:
        yield from (places[:, position] for position in range(places.shape[1]))


def _neighbours(
    orders: Sequence[NDArray[np.intp]],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    for order in orders:
        even = len(order) // 2 * 2
        if even:
            yield order[0:even:2], order[1:even:2]


def _mend(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    """Quantise the weight of one node again; False when there is nothing to mend."""
    names = graph.weight_and_scale(node)
    if names is None:
        return False
    quantised, scale = names
    values = graph.weight_before(quantised)
    if values is None or (node.op_type == "Conv" and is_depthwise(values.shape)):
        return False
    old = graph.values(scale)
    rows, pairs = _rows_of(node, values)
    if old.size != len(rows):
        return False  # one scale for all channels
    whole, scales = quantise_in_pairs(rows, pairs)
    restored = whole if is_row_major(node) else whole.T
    graph.replace(quantised, restored.reshape(values.shape))
    graph.replace(scale, scales.astype(np.float32).reshape(old.shape))
    _mend_bias(graph, node, scales)
    return True


def _mend_bias(graph: QdqGraph, node: onnx.NodeProto, scales: Matrix) -> None:
    """A bias is held in units of both scales."""
    dequantise = graph.dequantised(node, 2)
    inputs = graph.dequantised(node, 0)
    if dequantise is None or inputs is None:
        return
    old = graph.values(dequantise.input[1])
    bias = graph.values(dequantise.input[0]) * old
    unit = (scales * float(graph.values(inputs.input[1]).reshape(()))).astype(np.float32)
    limit = np.iinfo(np.int32)
    # a channel of zeros has a scale next to nothing; its bias must still fit
    unit = np.maximum(unit, (np.abs(bias) / limit.max * 2).astype(np.float32))
    unit = np.maximum(unit, np.finfo(np.float32).tiny)
    graph.replace(dequantise.input[0], np.round(bias / unit).astype(np.int32))
    graph.replace(dequantise.input[1], unit.reshape(old.shape))


def _rows_of(node: onnx.NodeProto, values: Matrix) -> tuple[Matrix, Pairs]:
    if node.op_type == "Conv":
        channels = values.shape[1]
        rows = values.reshape(len(values), -1)
        return rows, convolution_pairs(channels, rows.shape[1] // channels)
    rows = values if is_row_major(node) else values.T
    return cast("Matrix", rows), convolution_pairs(rows.shape[1], 1)
