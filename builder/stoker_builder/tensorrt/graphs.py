"""Making graphs that TensorRT takes: half precision written into the graph, Q/DQ as it wants it."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, version_converter

from stoker_builder.errors import BuildCode, BuildError

# From this opset on a scale may be half precision, as the tensors around it then are.
_HALF_SCALES_OPSET: Final = 19
_SIGNED: Final = frozenset({TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4})
_OWN_DOMAINS: Final = frozenset({"", "ai.onnx"})


def parsable(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what only confuses TensorRT's parser.

    Raises:
        BuildError: ``TENSORRT_GRAPH``: an operator or a quantisation that it never takes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = {tensor.name for tensor in copy.graph.initializer}
    # Old exporters list weights among the inputs, and then they are not constant.
    true_inputs = [value for value in copy.graph.input if value.name not in held]
    del copy.graph.input[:]
    copy.graph.input.extend(true_inputs)
    _refuse_domains(copy)
    _refuse_quantisation(copy)
    return copy


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in half precision, with the inputs and outputs that it had.

    A strongly typed network does what the graph says, so FP16 has to be in the graph; so it is
    for what a quantised graph leaves in floating point.

    Raises:
        BuildError: ``TENSORRT_GRAPH``, the graph can not be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415  slow to import

    try:
        if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
            model = _at_least(model, _HALF_SCALES_OPSET)
        converted = convert_float_to_float16(model, keep_io_types=True)
    except Exception as error:  # noqa: BLE001  the converters raise what they like
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
        hint = "ship this target in FP32"
        detail = f"it can not be written in half precision: {reason}"
        raise BuildError(BuildCode.TENSORRT_GRAPH, detail, hint) from None
    result: onnx.ModelProto = converted
    return result


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a graph has explicit quantisation."""
    return any(node.op_type == "DequantizeLinear" for node in model.graph.node)


def _at_least(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    present = max(entry.version for entry in model.opset_import if entry.domain in _OWN_DOMAINS)
    return model if present >= opset else version_converter.convert_version(model, opset)


def _refuse_domains(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.domain not in _OWN_DOMAINS:
            detail = f"TensorRT has no {node.domain}.{node.op_type}"
            hint = "export the model with standard operators"
            raise BuildError(BuildCode.TENSORRT_GRAPH, detail, hint)


def _refuse_quantisation(model: onnx.ModelProto) -> None:
    """TensorRT quantises signed and around zero; anything else it parses wrongly or not at all."""
    constants = dict(_constants(model))
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None  # noqa: PLR2004
        if zero_point is None:
            signed = node.op_type == "DequantizeLinear"  # Q without a zero point gives uint8
        else:
            signed = zero_point.data_type in _SIGNED
        if not signed or (zero_point is not None and np.any(numpy_helper.to_array(zero_point))):
            detail = f"{node.name or node.output[0]} is not quantised signed and around zero"
            hint = "quantise with the recipe int8-explicit"
            raise BuildError(BuildCode.TENSORRT_GRAPH, detail, hint)


def _constants(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t
