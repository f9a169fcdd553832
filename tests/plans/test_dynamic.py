"""Plans for a range of shapes: opened, proved, compiled for real, bounded in the manifest."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stoker_builder.bench import BuildResult
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.tensorrt.dynamic import Sizes, check_ranges, opened, proved
from stoker_builder.tensorrt.settings import ShapeRange
from stoker_contract.hop import max_tensor_bytes
from stoker_contract.manifest import TensorSpec
from stoker_contract.target import ArtifactKind
from support.builder_models import SHAPE
from support.small_cnn import small_cnn
from support.tiny_build import request_for

IMAGE = SHAPE[1:]
BATCHES = ShapeRange(min=(1, *IMAGE), opt=(4, *IMAGE), max=(8, *IMAGE))
SMALL = ShapeRange(min=(1, 3, 32, 32), opt=(2, 3, 32, 32), max=(4, 3, 32, 32))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """A release with a plan for batches of one to eight."""
    output = tmp_path_factory.mktemp("dynamic") / "release"
    request = request_for(
        output,
        targets=("rtx-sm89",),
        precision="fp32",
        latency_s=0,
        plan_shapes={"x": BATCHES},
    )
    return build(request, Silence())


@pytest.mark.rtx
@pytest.mark.slow
def test_the_manifest_says_which_batches_a_plan_takes(built: BuildResult) -> None:
    """Its first dimension is free, within what it was compiled for; the fallback takes one."""
    plan, portable = built.manifest.artifacts
    (taken,), (given,) = plan.io.inputs, plan.io.outputs

    assert plan.kind is ArtifactKind.TENSORRT_PLAN
    assert (taken.shape, taken.smallest, taken.largest) == (
        (-1, *IMAGE),
        (1, *IMAGE),
        (8, *IMAGE),
    )
    assert (given.shape[0], given.smallest[0], given.largest[0]) == (-1, 1, 8)
    assert [taken.takes((batch, *IMAGE)) for batch in (0, 1, 8, 9)] == [False, True, True, False]
    assert portable.io.inputs[0].shape == SHAPE


def tried(
    folder: Path, model: onnx.ModelProto, ranges: dict[str, ShapeRange], x: NDArray[np.float32]
) -> dict[str, Sizes]:
    """Open a graph, and prove what was opened."""
    source, path = folder / "source.onnx", folder / "opened.onnx"
    onnx.save(model, source)
    onnx.save(opened(model, ranges), path)
    return proved(path, source, ranges, {"x": x})


ROW = ShapeRange(min=(1, 4), opt=(2, 4), max=(3, 4))
IN_TURN = ("Transpose", ["x"], ["turned"], {"perm": [1, 0]})


def of_nodes(*nodes: tuple[str, list[str], list[str], dict[str, Any]]) -> onnx.ModelProto:
    """Four numbers in, ``y`` out."""
    graph = helper.make_graph(
        [helper.make_node(kind, taken, made, **how) for kind, taken, made, how in nodes],
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, -1], np.int64), "one_row")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "nodes",
    [
        [("CumSum", ["x", "axis"], ["y"], {})],
        [("ReduceMean", ["x"], ["y"], {"axes": [0], "keepdims": 1})],
        [
            ("ReduceMean", ["x"], ["mean"], {"axes": [0], "keepdims": 1}),
            ("Add", ["x", "mean"], ["y"], {}),
        ],
        [
            IN_TURN,
            ("Reshape", ["turned", "one_row"], ["row"], {}),
            ("ReduceMax", ["row"], ["y"], {"axes": [1], "keepdims": 1}),
        ],
    ],
    ids=["sum-over-batch", "mean-of-batch", "mean-added", "reshape-of-another-axis"],
)
def test_a_graph_that_means_its_batch_is_not_opened(
    tmp_path: Path, nodes: list[tuple[str, list[str], list[str], dict[str, Any]]]
) -> None:
    """It runs with any batch and gives other answers than for each sample: that is found out."""
    model = of_nodes(*nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "axis"))

    with pytest.raises(BuildError, match="not that of its samples") as refused:
        tried(tmp_path, model, {"x": ROW}, np.array([[1, 5, 2, 3]], np.float32))
    assert refused.value.code is BuildCode.TENSORRT_GRAPH


def test_an_answer_that_is_always_the_same_needs_no_batch(tmp_path: Path) -> None:
    """Anchors of a detector, say, are no rows of anything."""
    model = of_nodes(("Relu", ["x"], ["y"], {}), ("Identity", ["held"], ["anchors"], {}))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((5, 2), np.float32), "held"))
    model.graph.output.append(helper.make_tensor_value_info("anchors", TensorProto.FLOAT, None))

    seen = tried(tmp_path, model, {"x": ROW}, np.array([[1, 5, 2, 3]], np.float32))

    assert (seen["max"]["y"], seen["max"]["anchors"]) == ((3, 4), (5, 2))


def reshaped(sizes: list[int]) -> onnx.ModelProto:
    """The small net, whose features are reshaped as an exporter wrote it down."""
    model = small_cnn()
    inner = next(node for node in model.graph.node if node.op_type == "Flatten")
    inner.op_type = "Reshape"
    inner.input.append("fixed")
    model.graph.initializer.append(
        helper.make_tensor("fixed", TensorProto.INT64, [len(sizes)], np.array(sizes, np.int64))
    )
    return model


@pytest.mark.parametrize("sizes", [[1, 16], [1, -1]])
def test_a_batch_that_an_exporter_wrote_down_is_opened(tmp_path: Path, sizes: list[int]) -> None:
    """It follows from the rest of the shape."""
    seen = tried(tmp_path, reshaped(sizes), {"x": SMALL}, np.ones((1, 3, 32, 32), np.float32))

    assert {end: shapes["scores"] for end, shapes in seen.items()} == {
        "min": (1, 10),
        "opt": (2, 10),
        "max": (4, 10),
    }


def test_a_graph_with_its_batch_inside_is_not_opened(tmp_path: Path) -> None:
    """One that takes one batch only is found out before it is compiled."""
    model = small_cnn()
    last = next(node for node in model.graph.node if "scores" in node.output)
    last.output[0] = "single"
    model.graph.node.append(helper.make_node("Add", ["single", "three"], ["scores"]))
    three = numpy_helper.from_array(np.zeros((3, 10), np.float32), "three")
    model.graph.initializer.append(three)

    with pytest.raises(BuildError, match="does not take the opt of --plan-shape") as refused:
        tried(tmp_path, model, {"x": SMALL}, np.ones((1, 3, 32, 32), np.float32))
    assert refused.value.code is BuildCode.TENSORRT_GRAPH
    assert "export the model" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("y", (1, 3, 32, 32), "names x, the samples have"),
        ("x", (8, 3, 32, 32), "the samples have"),
        ("x", (3, 32, 32), "the samples have"),
    ],
    ids=["another-input", "outside", "rank"],
)
def test_ranges_are_those_of_the_samples(name: str, shape: tuple[int, ...], said: str) -> None:
    """What certifies the plan has to be something that it takes."""
    with pytest.raises(BuildError, match=said) as refused:
        check_ranges({"x": SMALL}, {name: np.ones(shape, np.float32)})
    assert refused.value.code is BuildCode.DATA_MISMATCH


class Stages(Silence):
    """Keeps the titles of what was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def stage(self, title: str, total: float) -> AbstractContextManager[Self]:
        """Keep it."""
        del total
        self.begun.append(title)
        return nullcontext(self)


@pytest.mark.parametrize(
    ("targets", "name", "code"),
    [
        (("rtx-sm89",), "images", BuildCode.DATA_MISMATCH),
        (("x86-64-v3",), "x", BuildCode.BAD_REQUEST),
    ],
    ids=["no-such-input", "no-plans"],
)
def test_ranges_are_refused_before_anything_slow(
    tmp_path: Path, targets: tuple[str, ...], name: str, code: BuildCode
) -> None:
    """Not after an hour of building, and not without a word."""
    progress = Stages()
    request = request_for(tmp_path / "x", targets=targets, plan_shapes={name: BATCHES})

    with pytest.raises(BuildError) as refused:
        build(request, progress)

    assert refused.value.code is code
    assert progress.begun == []


def test_a_bounded_tensor_has_the_room_that_it_needs() -> None:
    """No more is set aside for it than its largest shape, and no less."""
    spec = TensorSpec.model_validate(
        {"name": "x", "dtype": "FP32", "shape": (-1, 4), "smallest": (1, 4), "largest": (8, 4)},
        strict=False,
    )

    assert max_tensor_bytes(spec) == 8 * 4 * 4
