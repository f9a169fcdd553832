"""A small convolutional net for compilers, and samples to calibrate it with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

IMAGE = (3, 32, 32)
_CLASSES, _CHANNELS = 10, 16


@dataclass(frozen=True)
class Sample:
    """What calibration reads."""

    inputs: Mapping[str, NDArray[np.generic]]


def small_cnn(batch: int | str = 1) -> onnx.ModelProto:
    """Two convolutions with a residual, pooling and a classifier; ``x`` gives ``scores``."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.3, (_CHANNELS, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, _CHANNELS),
        "w2": rng.normal(0, 0.1, (_CHANNELS, _CHANNELS, 3, 3)),
        "b2": rng.normal(0, 0.1, _CHANNELS),
        "w3": rng.normal(0, 0.3, (_CHANNELS, _CLASSES)),
        "b3": rng.normal(0, 0.1, _CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a2"]),
        helper.make_node("Relu", ["a2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small_cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *IMAGE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, _CLASSES])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def samples(count: int) -> list[Sample]:
    """Noise images, the same ones every time."""
    rng = np.random.default_rng(1)
    return [Sample({"x": rng.normal(size=(1, *IMAGE)).astype(np.float32)}) for _ in range(count)]
