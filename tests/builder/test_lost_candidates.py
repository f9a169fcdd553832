"""A candidate that can not go on: it loses, and nobody else does."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from stoker_builder.accuracy.evaluate import answer_all
from stoker_builder.children import Limits
from stoker_builder.data import load_data
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.engines import EngineChild, EngineRunner
from stoker_builder.kernels.places import native
from stoker_builder.latency.measure import BurstRules, measure
from stoker_builder.metrics import Top1
from stoker_builder.split import split
from stoker_contract.manifest import SessionOptions
from support.tiny_build import MODELS

Arrays = Mapping[str, NDArray[np.generic]]


class Failing:
    """Answers like another, and after some samples no more."""

    def __init__(self, other: EngineRunner, answers: int) -> None:
        self._other = other
        self._left = answers

    def run(self, inputs: Arrays) -> Arrays:
        """Answer, or fail."""
        self()
        return self._other.run(inputs)

    def __call__(self) -> None:
        """Run for the time it takes, or fail."""
        self._left -= 1
        if self._left < 0:
            raise BuildError(BuildCode.MEASURE, "it is gone", "")


@pytest.fixture
def endless_model(tmp_path: Path) -> Path:
    """A file whose loop runs for as long as its input says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Add", ["sum", "one"], ["next_sum"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_sum", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "yes", "start"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("turns", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
            helper.make_tensor("start", TensorProto.FLOAT, [1], [0.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "endless.onnx"
    onnx.save(model, path)
    return path


def test_an_engine_that_never_answers_is_given_up(endless_model: Path) -> None:
    """It costs the time that was allowed; the process is gone, and the error says so."""
    few, many = ({"turns": np.array([n], dtype=np.int64)} for n in (3, 2**60))
    limits = Limits(run_s=0.5)

    with EngineChild(endless_model, SessionOptions(), few, native(), limits) as child:
        assert child.run(few)["y"].tolist() == [3.0]
        with pytest.raises(BuildError, match=r"endless\.onnx gave no answer within 0\.5 s"):
            child.run(many)
        pid = child.pid

    assert not psutil.pid_exists(pid)


def test_the_others_go_on_answering_without_it(tiny_onnx: Path) -> None:
    """A file that dies on a sample is left out, and the reason is told once."""
    part = split(load_data(f"{MODELS}:dataset", {"samples": "60"})).certification
    engine = EngineRunner(tiny_onnx, SessionOptions())
    told: list[tuple[str, str]] = []

    answers = answer_all(
        {"fp32": engine, "dying": Failing(engine, 3), "int8": engine},
        part,
        Top1("labels"),
        lost=lambda name, error: told.append((name, error.detail)),
    )

    assert told == [("dying", "it is gone")]
    assert {name: len(answer) for name, answer in answers.items()} == {
        "fp32": len(part),
        "int8": len(part),
    }


def test_nothing_is_judged_without_the_reference(tiny_onnx: Path) -> None:
    """When FP32 itself dies there is nothing to compare with: that ends the build."""
    part = split(load_data(f"{MODELS}:dataset", {"samples": "60"})).certification
    engine = EngineRunner(tiny_onnx, SessionOptions())

    with pytest.raises(BuildError, match="it is gone"):
        answer_all(
            {"fp32": Failing(engine, 3), "int8": engine},
            part,
            Top1("labels"),
            lost=lambda _name, _error: None,
        )


def test_the_others_are_timed_to_the_end(tiny_onnx: Path) -> None:
    """A variant that dies while it is timed has no figures; the others have all of theirs."""
    engine = EngineRunner(tiny_onnx, SessionOptions())
    told: list[str] = []

    stats = measure(
        {"steady": lambda: None, "dying": Failing(engine, 20)},
        lost=lambda name, _error: told.append(name),
        min_seconds=0.0,
        min_samples=30,
        rules=BurstRules(seconds=0.0, idle_gap_s=0.0),
    )

    assert told == ["dying"]
    assert list(stats) == ["steady"]
    assert stats["steady"].samples >= 30
