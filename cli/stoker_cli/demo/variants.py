"""Releases that are wrong on purpose, made from a good one: properly signed, and not to be served.

Each keeps the golden set of the good release, as a mistake in a training pipeline would: what was
certified is right, what was shipped is something else.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stoker_contract.manifest import Artifact, Manifest

HOT: Final = 1.5
"""What a defect pixel of the camera reads. No photograph has a value above 1."""

_HOT_THRESHOLD: Final = 1.25
_HOT_EVERY: Final = 9  # one frame in so many
_SIDE: Final = 256  # of the matrices that are multiplied for nothing
# Added to every logit: too little to change one, too much for an optimiser to remove.
_NEXT_TO_NOTHING: Final = 1e-30

Edit = Callable[[onnx.ModelProto], None]


def remake(source: Path, target: Path, *, version: str, counter: int, edit: Edit) -> Manifest:
    """Write a release folder: that of ``source``, with every model edited."""
    manifest = Manifest.parse((source / "manifest.json").read_bytes())
    release = f"{manifest.model}/{version}"
    target.mkdir(parents=True, exist_ok=True)
    artifacts = tuple(
        _remade(artifact, source, target, release, edit) for artifact in manifest.artifacts
    )
    changed = manifest.model_copy(
        update={"version": version, "counter": counter, "artifacts": artifacts}
    )
    (target / "manifest.json").write_bytes(changed.encode())
    return changed


def _remade(artifact: Artifact, source: Path, target: Path, release: str, edit: Edit) -> Artifact:
    name = artifact.path.rpartition("/")[2]
    golden_name = artifact.golden.path.rpartition("/")[2]
    model = onnx.load(source / name)
    edit(model)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    (target / name).write_bytes(data)
    shutil.copyfile(source / golden_name, target / golden_name)
    return artifact.model_copy(
        update={
            "path": f"{release}/{name}",
            "digest": hashlib.sha256(data).hexdigest(),
            "length": len(data),
            "golden": artifact.golden.model_copy(update={"path": f"{release}/{golden_name}"}),
        }
    )


def unchanged(model: onnx.ModelProto) -> None:
    """The same model in other bytes, which a device has to download."""
    model.doc_string = "the same again"


def swap_labels(model: onnx.ModelProto) -> None:
    """Every class gets the score of its neighbour: the mistake of a sorted label file."""
    graph = model.graph
    output = graph.output[0]
    classes = output.type.tensor_type.shape.dim[-1].dim_value
    order = np.roll(np.arange(classes, dtype=np.int64), 1)
    graph.initializer.append(numpy_helper.from_array(order, "stoker_order"))
    right = _rename_output(graph, output.name)
    graph.node.append(helper.make_node("Gather", [right, "stoker_order"], [output.name], axis=-1))


def slow_on_hot_pixels(trips: int) -> Edit:
    """The same answers; but a frame with a hot pixel costs a loop that computes nothing."""

    def edit(model: onnx.ModelProto) -> None:
        graph = model.graph
        output = graph.output[0].name
        right = _rename_output(graph, output)
        constants = {
            "stoker_threshold": np.float32(_HOT_THRESHOLD),
            "stoker_trips": np.int64(trips),
            "stoker_none": np.int64(0),
            "stoker_go_on": np.bool_(True),  # noqa: FBT003  numpy's own constructor
            "stoker_matrix": np.eye(_SIDE, dtype=np.float32),
            "stoker_scale": np.float32(_NEXT_TO_NOTHING),
        }
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        made = helper.make_node
        graph.node.extend(
            [
                made("ReduceMax", [graph.input[0].name], ["stoker_peak"], keepdims=0),
                made("Greater", ["stoker_peak", "stoker_threshold"], ["stoker_hot"]),
                made("Where", ["stoker_hot", "stoker_trips", "stoker_none"], ["stoker_times"]),
                made(
                    "Loop",
                    ["stoker_times", "stoker_go_on", "stoker_matrix"],
                    ["stoker_product"],
                    body=_multiply_again(),
                ),
                made("ReduceMean", ["stoker_product"], ["stoker_mean"], keepdims=0),
                made("Mul", ["stoker_mean", "stoker_scale"], ["stoker_nothing"]),
                made("Add", [right, "stoker_nothing"], [output]),
            ]
        )

    return edit


def _multiply_again() -> onnx.GraphProto:
    shape = [_SIDE, _SIDE]
    return helper.make_graph(
        [
            helper.make_node("Identity", ["going_on"], ["go_on"]),
            helper.make_node("MatMul", ["before", "stoker_matrix"], ["after"]),
        ],
        "multiply_again",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, shape),
        ],
    )


def _rename_output(graph: onnx.GraphProto, name: str) -> str:
    """Let what produced the output ``name`` produce another name, which is returned."""
    renamed = f"{name}_right"
    for node in graph.node:
        for place, given in enumerate(node.output):
            if given == name:
                node.output[place] = renamed
        for place, taken in enumerate(node.input):
            if taken == name:
                node.input[place] = renamed
    return renamed


def hot_frames(release: Path, target: Path) -> str:
    """Write frames to send: the golden inputs, some with a hot pixel. Returns the tensor's name."""
    manifest = Manifest.parse((release / "manifest.json").read_bytes())
    artifact = manifest.artifacts[0]
    tensor = artifact.io.inputs[0].name
    with np.load(release / artifact.golden.path.rpartition("/")[2], allow_pickle=False) as golden:
        frames = golden[f"input.{tensor}"].copy()
    frames[(slice(0, None, _HOT_EVERY), *([0] * (frames.ndim - 1)))] = HOT
    np.save(target, frames)
    return tensor
