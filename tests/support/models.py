"""Tiny real ONNX models, good and bad, and the specs and golden files that go with them."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from stoker_contract.engine import EngineSpec
from stoker_contract.manifest import (
    DType,
    EngineIO,
    Golden,
    Limits,
    Precision,
    SessionOptions,
    TensorSpec,
)
from stoker_contract.target import ArtifactKind

FloatArray = npt.NDArray[np.float32]

_OPSET = 17
_IR_VERSION = 8
_FOREVER = 2**62


@dataclass(frozen=True)
class Model:
    """An ONNX file in memory, and the io that its manifest would promise."""

    data: bytes
    io: EngineIO

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()

    def put(
        self,
        folder: Path,
        release: str,
        session: SessionOptions | None = None,
        limits: Limits | None = None,
    ) -> EngineSpec:
        """Write the file into a store folder and return the spec of it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.digest
        path.write_bytes(self.data)
        return EngineSpec(
            digest=self.digest,
            length=len(self.data),
            path=str(path),
            release=release,
            kind=ArtifactKind.ONNX,
            precision=Precision.FP32,
            io=self.io,
            session=session or SessionOptions(),
            limits=limits or Limits(),
        )


def scale(factor: float, width: int = 4) -> Model:
    """``y = factor * x`` on ``[1, width]``: two of these are told apart by their answers."""
    weight = numpy_helper.from_array(np.array(factor, np.float32), "factor")
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    return _model([node], [weight], [1, width], [1, width])


def mlp(width: int = 16, classes: int = 10, seed: int = 0) -> Model:
    """Two layers on ``[1, width]``."""
    rng = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(rng.normal(size=(width, 32)).astype(np.float32), "w1"),
        numpy_helper.from_array(rng.normal(size=(32, classes)).astype(np.float32), "w2"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"]),
    ]
    return _model(nodes, weights, [1, width], [1, classes])


def conv(size: int = 32, seed: int = 0) -> Model:
    """One convolution and a global pool on ``[1, 3, size, size]``."""
    rng = np.random.default_rng(seed)
    weight = numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["y"]),
    ]
    return _model(nodes, [weight], [1, 3, size, size], [1, 8, 1, 1])


def dynamic() -> Model:
    """``y = 2 x`` on ``[batch, 3]``, the batch chosen by the caller; a second output sums rows."""
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["y"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "dynamic", [x], [y, total], [two, axes])
    tensors = EngineIO(
        inputs=(TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 3)),),
        outputs=(
            TensorSpec(name="y", dtype=DType.FP32, shape=(-1, 3)),
            TensorSpec(name="total", dtype=DType.FP32, shape=(-1,)),
        ),
    )
    return Model(_serialised(helper.make_model(graph)), tensors)


def slow() -> Model:
    """``y = x + n`` with ``n = max(x)``, counted one by one: the caller says how long it takes."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["turns"], to=TensorProto.INT64),
    ]
    return _looping(nodes, [])


def turns_for(seconds: float) -> FloatArray:
    """The input that keeps :func:`slow` busy for at least so long on any machine of today."""
    turns_per_s = 1_000_000
    return np.full((1, 4), seconds * turns_per_s, np.float32)


def hanging() -> Model:
    """Never ends, and looks harmless to a parser."""
    return _looping([], [numpy_helper.from_array(np.array(_FOREVER, np.int64), "turns")])


def memory_bomb(gigabytes: int = 64) -> Model:
    """Asks for many gigabytes when it is run. Nothing of that is in the file."""
    shape = numpy_helper.from_array(np.array([gigabytes, 2**28], np.int64), "shape")
    one = numpy_helper.from_array(np.array([1], np.float32), "one")
    nodes = [
        # Depends on the input, so that the optimiser can not fold it away at load.
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Mul", ["one", "top"], ["seed"]),
        helper.make_node("Expand", ["seed", "shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return _model(nodes, [shape, one], [1, 4], [1, 4])


def not_a_number() -> Model:
    """Answers NaN to everything."""
    node = helper.make_node("Mul", ["x", "nan"], ["y"])
    nan = numpy_helper.from_array(np.array(np.nan, np.float32), "nan")
    return _model([node], [nan], [1, 4], [1, 4])


def external() -> Model:
    """Keeps its weight in a file beside it."""
    model = ModelProto.FromString(scale(2).data)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return Model(model.SerializeToString(), scale(2).io)


def golden_file(
    path: Path,
    model_io: EngineIO,
    samples: Sequence[tuple[dict[str, FloatArray], dict[str, FloatArray]]],
    tolerance: float = 1e-4,
) -> Golden:
    """Write a golden file of (inputs, expected outputs) and return its description."""
    arrays = {}
    for spec in model_io.inputs:
        arrays[f"input.{spec.name}"] = np.stack([given[spec.name] for given, _ in samples])
    for spec in model_io.outputs:
        arrays[f"expected.{spec.name}"] = np.stack([answer[spec.name] for _, answer in samples])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    data = buffer.getvalue()
    path.write_bytes(data)
    return Golden(
        path="model/1.0/model.golden.npz",
        digest=hashlib.sha256(data).hexdigest(),
        length=len(data),
        samples=len(samples),
        tolerance=tolerance,
    )


def scale_golden(path: Path, factor: float, samples: int = 4, width: int = 4) -> Golden:
    """The golden file of :func:`scale`."""
    rng = np.random.default_rng(1)
    given = [rng.normal(size=(1, width)).astype(np.float32) for _ in range(samples)]
    pairs = [({"x": x}, {"y": (x * np.float32(factor)).astype(np.float32)}) for x in given]
    return golden_file(path, scale(factor, width).io, pairs)


def _looping(before: Sequence[NodeProto], constants: Sequence[TensorProto]) -> Model:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["value", "step"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, 4]),
        ],
        [numpy_helper.from_array(np.ones((1, 4), np.float32), "step")],
    )
    yes = numpy_helper.from_array(np.array(1, np.bool_), "yes")
    node = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)
    return _model([*before, node], [*constants, yes], [1, 4], [1, 4])


def _model(
    nodes: Sequence[NodeProto],
    weights: Sequence[TensorProto],
    input_shape: Sequence[int],
    output_shape: Sequence[int],
) -> Model:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)
    model = helper.make_model(helper.make_graph(nodes, "tiny", [x], [y], weights))
    tensors = EngineIO(
        inputs=(TensorSpec(name="x", dtype=DType.FP32, shape=tuple(input_shape)),),
        outputs=(TensorSpec(name="y", dtype=DType.FP32, shape=tuple(output_shape)),),
    )
    return Model(_serialised(model), tensors)


def _serialised(model: ModelProto) -> bytes:
    model.ir_version = _IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", _OPSET))
    checker.check_model(model)
    return bytes(model.SerializeToString())
