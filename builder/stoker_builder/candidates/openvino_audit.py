"""The fusion audit of a file in OpenVINO: which layers does the plugin run in eight bits?

OpenVINO hands out the graph as it will run it, with the kernel of each layer by name
(``brgconv_avx512_I8``); what multiplies and is not such a kernel stayed in floating point.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from stoker_builder.candidates.audit import Audit, FloatNode
from stoker_builder.kernels.engines import EngineRunner
from stoker_contract.manifest import SessionOptions
from stoker_engine.openvino_backend import OpenVinoEngine

_CONVOLUTIONS: Final = frozenset({"Convolution"})
_PRODUCTS: Final = frozenset({"MatMul", "FullyConnected"})
_TRANSPOSED: Final = frozenset({"Deconvolution"})
_EIGHT_BITS: Final = ("_i8", "_u8")


def audit_openvino(path: Path, session: SessionOptions) -> Audit:
    """Compile a file as the device will and count its multiply-accumulates.

    Raises:
        BuildError: ``UNSUPPORTED_OP``, when OpenVINO can not load it.
    """
    engine = EngineRunner(path, session).engine
    assert isinstance(engine, OpenVinoEngine)  # noqa: S101 - the session said so
    quantised, transposes = 0, 0
    floating: list[FloatNode] = []
    uncounted: list[str] = []
    for layer in engine.runtime_model().get_ordered_ops():
        kind, kernel = _told(layer, "layerType"), _told(layer, "primitiveType")
        transposes += kind == "Transpose"
        if kind not in _CONVOLUTIONS | _PRODUCTS | _TRANSPOSED:
            continue
        macs = _macs(kind, layer)
        name = f"{kind} {_told(layer, 'originalLayersNames') or layer.get_friendly_name()}"
        if macs is None:
            uncounted.append(name)
        elif kernel.lower().endswith(_EIGHT_BITS):  # some plugins' kernels shout, some do not
            quantised += macs
        else:
            made = 0 if kind in _PRODUCTS else int(layer.get_output_partial_shape(0).to_shape()[1])
            floating.append(FloatNode(name, macs, made))
    floating.sort(key=lambda node: -node.macs)
    return Audit(quantised, tuple(floating), tuple(uncounted), transposes)


def _told(layer: Any, key: str) -> str:  # noqa: ANN401 - the runtime has no types
    info = layer.get_rt_info()
    return str(info[key].value) if key in info else ""


def _macs(kind: str, layer: Any) -> int | None:  # noqa: ANN401 - the runtime has no types
    shapes = list(_shapes(layer))
    output = layer.get_output_partial_shape(0)
    if output.is_dynamic or len(shapes) < 2 or any(s is None for s in shapes[:2]):  # noqa: PLR2004
        return None
    data, weights = shapes[0], shapes[1]
    assert data is not None  # noqa: S101 - just checked
    assert weights is not None  # noqa: S101
    shape = tuple(int(size) for size in output.to_shape())
    outputs = math.prod(shape)
    if kind in _PRODUCTS:
        # every output is a sum over the dimension that the two operands share
        return outputs * data[-1]
    if kind in _TRANSPOSED:
        return math.prod(data) * math.prod(weights) // max(data[1], 1)
    # with groups the weight has them as its first dimension
    return outputs * (math.prod(weights) // shape[1])


def _shapes(layer: Any) -> Iterator[tuple[int, ...] | None]:  # noqa: ANN401 - the runtime has no types
    for port in range(layer.get_input_size()):
        shape = layer.get_input_partial_shape(port)
        yield None if shape.is_dynamic else tuple(shape.to_shape())
