"""Weights that can not overflow sixteen bits in pairs, and how little that costs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stoker_builder.candidates.overflow import (
    LARGEST_PAIR,
    convolution_pairs,
    quantise_in_pairs,
)
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import load_data
from stoker_builder.kernels.sessions import Session
from stoker_builder.split import split
from support.tiny_build import MODELS

SIXTEEN_BITS = np.iinfo(np.int16)


def drawn(rows: int, columns: int) -> np.ndarray:
    """Weights as training leaves them: most small, few large."""
    return np.random.default_rng(0).standard_t(4, (rows, columns))


@pytest.mark.parametrize(("channels", "kernel"), [(64, 1), (3, 9), (16, 9), (1, 9), (5, 1), (1, 1)])
def test_no_pair_of_products_overflows(channels: int, kernel: int) -> None:
    """Whatever the activations are, in either order of the weights."""
    whole, _ = quantise_in_pairs(drawn(32, channels * kernel), convolution_pairs(channels, kernel))

    by_place = whole.reshape(32, channels, kernel)
    for order in (whole, by_place.transpose(0, 2, 1).reshape(32, -1)):
        even = order.shape[1] // 2 * 2
        first, second = order[:, 0:even:2].astype(int), order[:, 1:even:2].astype(int)
        for one in (0, 255):
            for other in (0, 255):
                sums = one * first + other * second
                assert (sums <= SIXTEEN_BITS.max).all()
                assert (sums >= SIXTEEN_BITS.min).all()


def test_it_costs_far_less_than_seven_bits() -> None:
    """The rounding error is nearer to that of eight bits than to that of seven."""
    weights = drawn(64, 256)
    largest = np.abs(weights).max(axis=1, keepdims=True)

    def error(scale: np.ndarray, whole: np.ndarray) -> float:
        return float(((whole * scale - weights) ** 2).mean())

    eight, seven = largest / 127, largest / 63
    whole, scales = quantise_in_pairs(weights, convolution_pairs(256, 1))
    in_pairs = error(scales[:, None], whole)

    of_eight = error(eight, np.round(weights / eight))
    of_seven = error(seven, np.round(weights / seven))
    assert of_eight < in_pairs < (of_eight + of_seven) / 2


def test_a_pair_is_trimmed_on_both_sides() -> None:
    """Two neighbours of the same sign share what is too much; unlike signs never meet."""
    same, _ = quantise_in_pairs(np.array([[1.0, 1.0]]), convolution_pairs(2, 1))
    unlike, _ = quantise_in_pairs(np.array([[1.0, -1.0]]), convolution_pairs(2, 1))

    assert same.sum() <= LARGEST_PAIR
    assert unlike.tolist() == [[127, -127]]


def test_a_channel_of_zeros_stays_one() -> None:
    """Nothing is divided by nothing."""
    whole, scales = quantise_in_pairs(np.zeros((2, 4)), convolution_pairs(4, 1))

    assert not whole.any()
    assert (scales > 0).all()


def test_the_file_answers_as_before_within_rounding(tmp_path: Path, tiny_onnx: Path) -> None:
    """Weights, scales and biases change together: the quantised model is still the model."""
    parts = split(load_data(f"{MODELS}:dataset"))
    quantiser = Quantiser(tiny_onnx, parts.calibration, tmp_path)
    plain = Session(quantiser.make(RECIPES["int8-perchannel"]))
    safe_path = quantiser.make(RECIPES["int8-pairs"])
    safe, reference = Session(safe_path), Session(tiny_onnx)

    def distance(session: Session) -> float:
        answers = [
            np.abs(np.subtract(session.run(s)["output"], reference.run(s)["output"])).max()
            for s in (parts.certification[i].inputs for i in range(50))
        ]
        return float(np.mean(answers))

    assert distance(safe) < 4 * distance(plain)
    weights = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(safe_path).graph.initializer
        if t.data_type == onnx.TensorProto.INT8
    }
    assert any(np.abs(values).max() > 64 for values in weights.values())


def test_products_scaled_while_they_run_can_not_overflow_either(tmp_path: Path) -> None:
    """A matrix product of bytes gets its weights trimmed, and answers as before."""
    weights = drawn(64, 32).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 32])],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    source = tmp_path / "source.onnx"
    onnx.save(model, source)
    none_needed = split(load_data(f"{MODELS}:dataset")).calibration

    made = Quantiser(source, none_needed, tmp_path).make(RECIPES["int8-dynamic-pairs"])

    (held,) = (
        numpy_helper.to_array(tensor).astype(int)
        for tensor in onnx.load(made).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    )
    assert (np.abs(held[0::2] + held[1::2]) <= LARGEST_PAIR).all()
    inputs = {"x": np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)}
    before, after = (np.asarray(Session(p).run(inputs)["y"], float) for p in (source, made))
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()
