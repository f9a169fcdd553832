"""ONNX files of many kinds, sound and odd, made node by node."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 4)
ONES = {"x": np.ones(SHAPE, dtype=np.float32)}


def value(
    name: str, shape: Sequence[int | str] | None = SHAPE, kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    """A tensor of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def model(  # noqa: PLR0913  the parts of a model
    nodes: Sequence[onnx.NodeProto],
    *,
    initializers: Sequence[onnx.TensorProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Iterable[str] = (),
) -> onnx.ModelProto:
    """From ``x`` to ``y``, unless something else is said."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value("x")] if inputs is None else list(inputs),
        [value("y")] if outputs is None else list(outputs),
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    made.ir_version = 8
    return made


def relu(source: str = "x", target: str = "y") -> onnx.NodeProto:
    """The simplest node."""
    return helper.make_node("Relu", [source], [target])


def constant(name: str, content: object, kind: type = np.float32) -> onnx.TensorProto:
    """An initializer."""
    return numpy_helper.from_array(np.asarray(content, dtype=kind), name)


def with_outside_weight(folder: Path, **entries: str) -> Path:
    """``y = x + w``, where ``w`` lies where the entries say: four ones in ``w.bin``."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=SHAPE)
    weight.data_location = TensorProto.EXTERNAL
    for key, content in {"location": "w.bin", **entries}.items():
        weight.external_data.add(key=key, value=content)
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight])
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(np.ones(SHAPE, dtype=np.float32).tobytes())
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def endless() -> onnx.ModelProto:
    """Loops for as long as an integer counts."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["held"], ["next"]),
        ],
        "body",
        [
            value("i", [], TensorProto.INT64),
            value("go", [], TensorProto.BOOL),
            value("held"),
        ],
        [value("go_on", [], TensorProto.BOOL), value("next")],
    )
    loop = helper.make_node("Loop", ["trips", "yes", "x"], ["y"], body=body)
    trips = constant("trips", 2**62, np.int64)
    return model([loop], initializers=[trips, constant("yes", np.True_, np.bool_)])


def nested(levels: int) -> onnx.ModelProto:
    """Branches within branches."""
    inner = [relu()]
    for _ in range(levels):
        deeper = helper.make_graph(inner, "then", [], [value("y")])
        other = helper.make_graph([relu()], "else", [], [value("y")])
        inner = [helper.make_node("If", ["yes"], ["y"], then_branch=deeper, else_branch=other)]
    return model(inner, initializers=[constant("yes", np.True_, np.bool_)])


def buried(levels: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on, byte by byte."""
    graph = b""
    for _ in range(levels):
        attribute = _field(1, b"b") + _field(6, graph)
        graph = _field(1, _field(4, b"If") + _field(5, attribute))
    return _field(7, graph)


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def saved(made: onnx.ModelProto, path: Path) -> Path:
    """Write it, whatever it is."""
    path.write_bytes(made.SerializeToString())
    return path
