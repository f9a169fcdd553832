"""The golden set: which samples travel, and what is expected of them."""

from pathlib import Path

import numpy as np
import pytest

from stoker_builder.accuracy.evaluate import Answers, answer_all
from stoker_builder.accuracy.golden import MIN_SAMPLES, GoldenSet, make_golden, ways
from stoker_builder.data import load_data
from stoker_builder.kernels.engines import EngineRunner
from stoker_builder.metrics import Metric, OutputError, Top1
from stoker_builder.split import Part, split
from stoker_contract.manifest import Precision, SessionOptions
from support.tiny_build import MODELS


@pytest.fixture(scope="module")
def part() -> Part:
    """Some samples."""
    return split(load_data(f"{MODELS}:dataset", {"samples": "300"})).certification


def answered(engine: EngineRunner, part: Part, metric: Metric) -> Answers:
    """What the reference answers."""
    return answer_all({"fp32": engine}, part, metric)["fp32"]


def test_the_closest_calls_travel(tiny_onnx: Path, part: Part) -> None:
    """Half of the set are the calls that are first to change when something is wrong."""
    engines = [EngineRunner(tiny_onnx, way) for way in ways(SessionOptions())]
    reference = answered(engines[0], part, Top1())

    golden = make_golden(engines, part, reference, precision=Precision.FP32, classifies=True)

    closest = np.argsort(reference.margin)[: len(golden) // 2]
    assert set(closest) <= set(golden.positions)
    assert golden.describe("m/1.0.0/g.npz", golden.encode()).agreement == "argmax"


def test_where_no_call_is_close_samples_are_spread_evenly(tiny_onnx: Path, part: Part) -> None:
    """A metric without margins gives a set from all over the samples, compared by value."""
    engine = EngineRunner(tiny_onnx, SessionOptions())
    reference = answered(engine, part, OutputError())

    golden = make_golden([engine], part, reference, precision=Precision.FP32, classifies=False)

    assert len(golden) >= MIN_SAMPLES
    assert max(golden.positions) > len(part) * 0.9
    assert golden.spread == 0.0
    assert golden.describe("m/1.0.0/g.npz", golden.encode()).agreement == "allclose"


def test_what_other_kernels_answer_never_narrows_the_tolerance() -> None:
    """A device may run FP32 on a GPU, whose rounding the emulated processor does not have."""
    inputs, expected = {"x": np.ones((1, 2))}, {"y": np.array([[1.0, 2.0]])}
    wide = GoldenSet((inputs,), (expected,), (0,), 0.01, 0.0, classifies=False)

    seen = wide.observed_elsewhere([{"y": np.array([[1.0, 2.00001]])}], Precision.FP32)
    further = wide.observed_elsewhere([{"y": np.array([[1.0, 2.5]])}], Precision.FP32)

    assert seen.tolerance == wide.tolerance
    assert seen.expected[0]["y"][0, 1] == pytest.approx(2.00001)
    assert further.tolerance > wide.tolerance
