"""What recipes write into a file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import MemoryDataSet, Sample, load_data
from stoker_builder.kernels.sessions import Session
from stoker_builder.split import split
from support.tiny_build import MODELS


def test_what_goes_into_the_model_is_signed_around_zero(tmp_path: Path, tiny_onnx: Path) -> None:
    """Nothing else is, and the answers stay those of the model."""
    parts = split(load_data(f"{MODELS}:dataset"))

    made = Quantiser(tiny_onnx, parts.calibration, tmp_path).make(RECIPES["int8-signed-inputs"])

    graph = onnx.load(made).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    zeros = {
        node.input[0]: held[node.input[2]]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in held
    }
    own = {one.name for one in graph.input}
    assert {name: (zero.dtype, int(zero)) for name, zero in zeros.items() if name in own} == {
        name: (np.dtype("int8"), 0) for name in own
    }
    assert {zero.dtype for name, zero in zeros.items() if name not in own} == {np.dtype("uint8")}
    sample = parts.certification[0].inputs
    before, after = (Session(path).run(sample)["output"] for path in (tiny_onnx, made))
    assert np.abs(np.subtract(after, before)).max() < 0.1 * np.abs(before).max()


@pytest.mark.parametrize(
    ("channels", "groups", "integers"), [(1, 1, False), (3, 1, False), (4, 1, True), (1, 8, True)]
)
def test_what_makes_few_channels_stays_in_floating_point(
    tmp_path: Path, channels: int, groups: int, *, integers: bool
) -> None:
    """A kernel makes sixteen at once, so that one channel in INT8 is slower than in FP32."""
    source = upsampling(tmp_path / "source.onnx", channels, groups)
    drawn = np.random.default_rng(0).normal(size=(100, 1, 8, 6, 6)).astype(np.float32)
    samples = [Sample({"x": one}, None, f"{index}") for index, one in enumerate(drawn)]
    parts = split(MemoryDataSet(samples, "noise", "none", labelled=False))

    made = Quantiser(source, parts.calibration, tmp_path).make(RECIPES["int8-inputs"])

    graph = onnx.load(made).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    inputs = {node.op_type: makers.get(node.input[0]) for node in graph.node}
    assert inputs["Conv"] == "DequantizeLinear"
    assert (inputs["ConvTranspose"] == "DequantizeLinear") == integers


def upsampling(path: Path, channels: int, groups: int) -> Path:
    """A convolution, and one that enlarges what it made."""
    rng = np.random.default_rng(1)
    held = {"w": (8, 8, 3, 3), "v": (8, channels, 2, 2)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["p"], name="first", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["p"], ["q"], name="relu"),
            helper.make_node("ConvTranspose", ["q", "v"], ["y"], name="last", group=groups),
        ],
        "upsampling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
            for name, shape in held.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
