"""Biases that take back what rounding the weights did to the means."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stoker_builder.candidates.measured_bias import can_be_measured
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import MemoryDataSet, Sample
from stoker_builder.kernels.sessions import Session
from stoker_builder.split import Split, split

GRID = 1 / 64


def activations(shape: tuple[int, ...], count: int = 200) -> Split:
    """Samples as they are behind a ReLU: never negative, so that errors do not cancel."""
    rng = np.random.default_rng(4)
    samples = [
        Sample({"x": rng.uniform(0, 4, (1, *shape)).astype(np.float32)}, None, f"{i}")
        for i in range(count)
    ]
    return split(MemoryDataSet(samples, "noise", "none", labelled=False))


def weights(*shape: int) -> NDArray[np.float32]:
    """One large weight per channel makes the steps wide; the others all round the same way."""
    values = np.full(shape, 0.4 * GRID, np.float32)
    values.reshape(shape[0], -1)[:, 0] = 127 * GRID
    return values


def saved(path: Path, nodes: list[onnx.NodeProto], **held: NDArray[np.float32]) -> Path:
    """A model of one input and one output, whose shapes follow from the operators."""
    shape = [1, 8, 6, 6] if nodes[0].op_type == "Conv" else [1, 8]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def convolution(path: Path) -> Path:
    """Every output channel sees every input channel."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv")
    return saved(path, [node], w=weights(4, 8, 1, 1), b=np.zeros(4, np.float32))


def grouped(path: Path) -> Path:
    """Each output channel sees the input channels of its group."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", group=2)
    return saved(path, [node], w=weights(4, 4, 3, 3), b=np.zeros(4, np.float32))


def product(path: Path) -> Path:
    """A product whose bias is added after it, as encoders have them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
        helper.make_node("Add", ["p", "b"], ["y"], name="add"),
    ]
    return saved(path, nodes, w=weights(4, 8).T.copy(), b=np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("make", "recipe"),
    [(convolution, "int8-perchannel"), (grouped, "int8-perchannel"), (product, "int8-linear")],
)
def test_the_mean_of_a_channel_survives_rounding(
    tmp_path: Path, make: Callable[[Path], Path], recipe: str
) -> None:
    """What rounding adds up to is taken back, for every kind of product with a weight."""
    source = make(tmp_path / "source.onnx")
    parts = activations((8, 6, 6) if make is not product else (8,))

    quantised = Quantiser(source, parts.calibration, tmp_path).make(RECIPES[recipe])

    before, after = (mean_of(path, parts) for path in (source, quantised))
    rounded_away = 0.4 * GRID * 2.0 * (7 if make is not grouped else 35)
    assert np.abs(before - after).max() < rounded_away / 4


def mean_of(path: Path, parts: Split) -> NDArray[np.float64]:
    """The mean of each output channel over samples that did not calibrate."""
    session, part = Session(path), parts.certification
    answers = [session.run(part[i].inputs)["y"].astype(np.float64) for i in range(len(part))]
    stacked = np.concatenate(answers)
    return np.asarray(stacked.mean(axis=tuple(i for i in range(stacked.ndim) if i != 1)))


def test_a_recipe_that_stands_for_others_leaves_biases_alone(tmp_path: Path) -> None:
    """What the ecosystem does by default is measured as it is."""
    source = convolution(tmp_path / "source.onnx")
    parts = activations((8, 6, 6))

    quantised = Quantiser(source, parts.calibration, tmp_path).make(RECIPES["int8-s8s8"])

    biases = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(quantised).graph.initializer
        if tensor.data_type == TensorProto.INT32 and tensor.dims == [4]
    ]
    assert all((bias == 0).all() for bias in biases)


def chain(path: Path) -> Path:
    """Two layers with a ReLU between them, behind which a spread has become a mean."""
    rng = np.random.default_rng(7)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "v", "c"], ["y"], name="second"),
    ]
    return saved(
        path,
        nodes,
        w=rng.normal(0, 1, (8, 8, 1, 1)).astype(np.float32),
        b=np.zeros(8, np.float32),
        v=weights(4, 8, 1, 1),
        c=np.zeros(4, np.float32),
    )


@pytest.mark.parametrize(("recipe", "made"), [("int8-inputs", chain), ("int8-linear", product)])
def test_a_measured_bias_takes_back_what_all_rounding_did(
    tmp_path: Path, recipe: str, made: Callable[[Path], Path]
) -> None:
    """Biases that are measured leave the means of the output where they were."""
    source = made(tmp_path / "source.onnx")
    parts = activations((8, 6, 6) if made is not product else (8,))
    wanted = mean_of(source, parts)
    off = {}
    for way in ("no", "measured"):
        scratch = tmp_path / way
        scratch.mkdir()
        how = replace(RECIPES[recipe], corrects_bias=way)
        quantised = Quantiser(source, parts.calibration, scratch).make(how)
        off[way] = np.abs(mean_of(quantised, parts) - wanted).max()

    assert off["measured"] < off["no"] / 3


def test_a_graph_with_a_graph_in_it_is_corrected_by_its_weights(tmp_path: Path) -> None:
    """What can not be run in pieces keeps the correction that needs no run."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["p"], ["q"])],
        "branch",
        [],
        [helper.make_tensor_value_info("q", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["p"], name="conv"),
        helper.make_node("ReduceMax", ["p"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["some"]),
        helper.make_node("If", ["some"], ["y"], then_branch=branch, else_branch=branch),
    ]
    source = saved(
        tmp_path / "source.onnx",
        nodes,
        w=weights(4, 8, 1, 1),
        b=np.zeros(4, np.float32),
        zero=np.zeros((), np.float32),
    )
    parts = activations((8, 6, 6))

    quantised = Quantiser(source, parts.calibration, tmp_path).make(RECIPES["int8-inputs"])

    assert not can_be_measured(quantised)
    assert np.abs(mean_of(source, parts) - mean_of(quantised, parts)).max() < 0.4 * GRID * 2 * 7 / 4
