"""Writes ``models/``: one net in three precisions, small enough to be in the tree.

``python -m benchmarks.board.make_models`` needs the builder; a board only reads the files. A test
makes them again and compares what they answer.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import Sample
from stoker_builder.split import Part
from stoker_builder.tensorrt.graphs import half, parsable

MODELS: Final = Path(__file__).parent / "models"
IMAGE: Final = (3, 224, 224)
_WIDTHS: Final = (16, 32, 64, 64)
_CLASSES: Final = 10
_CALIBRATION: Final = 16


def main(folder: Path = MODELS) -> None:
    """Write ``fp32.onnx``, ``fp16.onnx`` and ``int8.onnx``."""
    folder.mkdir(exist_ok=True)
    source = parsable(net())
    onnx.save(source, folder / "fp32.onnx")
    onnx.save(half(source), folder / "fp16.onnx")
    rng = np.random.default_rng(1)
    noise = [
        Sample({"x": rng.normal(size=(1, *IMAGE)).astype(np.float32)}, None, f"{position}")
        for position in range(_CALIBRATION)
    ]
    part = Part(noise, tuple(range(_CALIBRATION)), ())
    with tempfile.TemporaryDirectory() as scratch:
        quantiser = Quantiser(folder / "fp32.onnx", part, Path(scratch))
        quantised = onnx.load(quantiser.make(RECIPES["int8-explicit"]))
    onnx.save(half(parsable(quantised)), folder / "int8.onnx")


def net() -> onnx.ModelProto:
    """Four stages, each halving the image and with a residual; ``x`` gives ``scores``."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    weights: dict[str, NDArray[np.float32]] = {}
    last, channels = "x", IMAGE[0]
    for stage, width in enumerate(_WIDTHS):
        nodes += _stage(f"s{stage}", last, weights, rng, (channels, width))
        last, channels = f"s{stage}", width
    weights["w"] = _normal(rng, (channels, _CLASSES), channels)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "board",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *IMAGE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, _CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _stage(
    name: str,
    source: str,
    weights: dict[str, NDArray[np.float32]],
    rng: np.random.Generator,
    channels: tuple[int, int],
) -> Iterator[NodeProto]:
    taken, width = channels
    for part, inputs in (("down", taken), ("same", width)):
        weights[f"{name}_{part}_w"] = _normal(rng, (width, inputs, 3, 3), inputs * 9)
        weights[f"{name}_{part}_b"] = _normal(rng, (width,), 100)
    down, same = ([f"{name}_{part}_w", f"{name}_{part}_b"] for part in ("down", "same"))
    pads = [1, 1, 1, 1]
    yield helper.make_node("Conv", [source, *down], [f"{name}_c"], pads=pads, strides=[2, 2])
    yield helper.make_node("Relu", [f"{name}_c"], [f"{name}_r"])
    yield helper.make_node("Conv", [f"{name}_r", *same], [f"{name}_d"], pads=pads)
    yield helper.make_node("Add", [f"{name}_d", f"{name}_r"], [f"{name}_a"])
    yield helper.make_node("Relu", [f"{name}_a"], [name])


def _normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> NDArray[np.float32]:
    # keeps the spread of the activations from stage to stage
    return rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)


if __name__ == "__main__":
    main()
