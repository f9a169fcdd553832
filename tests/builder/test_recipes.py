"""What recipes write into a file."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import load_data
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
