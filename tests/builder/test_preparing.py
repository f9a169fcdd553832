"""The graph that candidates are quantised from: it says what quantisers understand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stoker_builder.candidates.preparing import prepared
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import MemoryDataSet, Sample
from stoker_builder.kernels.sessions import Session
from stoker_builder.split import Split, split

WIDTH = 16


@pytest.fixture
def samples() -> Split:
    """Rows of normal numbers."""
    rng = np.random.default_rng(1)
    rows = [
        Sample({"x": rng.normal(size=(1, WIDTH)).astype(np.float32)}, None, f"{i}")
        for i in range(200)
    ]
    return split(MemoryDataSet(rows, "noise", "none", labelled=False))


def scaled_layer(path: Path) -> Path:
    """A Gemm with factors, whose weight is also used as it is."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], alpha=0.25, beta=3.0, transB=1),
        helper.make_node("Gemm", ["h", "w"], ["y"], transB=1),
    ]
    held = {
        "w": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "b": rng.normal(size=WIDTH).astype(np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "factors",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WIDTH])],
        [numpy_helper.from_array(values, name) for name, values in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def answers(path: Path, parts: Split) -> NDArray[np.float64]:
    """The answers to the selection samples."""
    session, part = Session(path), parts.selection
    rows = [session.run(part[i].inputs)["y"].astype(np.float64) for i in range(len(part))]
    return np.concatenate(rows)


def test_a_gemm_with_factors_is_the_same_without_them(tmp_path: Path, samples: Split) -> None:
    """The factors are in the weights; whoever shares those keeps them as they were."""
    source = scaled_layer(tmp_path / "source.onnx")

    plain = prepared(source, tmp_path)

    graph = onnx.load(plain).graph
    assert not {"alpha", "beta"} & {a.name for node in graph.node for a in node.attribute}
    assert len(graph.initializer) == 3  # the weight twice, the bias once
    np.testing.assert_allclose(answers(plain, samples), answers(source, samples), rtol=1e-4)


@pytest.mark.parametrize("recipe", ["int8-pairs", "int8-inputs-pairs", "int8-dynamic-pairs"])
def test_a_gemm_with_factors_can_be_quantised(tmp_path: Path, samples: Split, recipe: str) -> None:
    """It loses no more than rounding does."""
    source = scaled_layer(tmp_path / "source.onnx")

    quantised = Quantiser(source, samples.calibration, tmp_path).make(RECIPES[recipe])

    meant, given = answers(source, samples), answers(quantised, samples)
    assert np.std(given - meant) < 0.05 * np.std(meant)
