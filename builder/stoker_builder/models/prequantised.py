"""Recognising a model that somebody else has quantised already."""

from collections import Counter
from typing import Final

import onnx

from stoker_builder.models.onnx_parts import nodes

_DYNAMIC: Final = "Dynamic"  # DynamicQuantizeLinear, DynamicQuantizeMatMul, …
_IN_INTEGERS: Final = frozenset({"QGemm", "QAttention", "MatMulIntegerToFloat"})
_WEIGHTS_ONLY: Final = frozenset({"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"})


def scheme_of(model: onnx.ModelProto) -> str | None:
    """How a model is quantised, in a word; None when it is not.

    ``dynamic`` (ranges are taken at run time), ``qdq`` (quantise and dequantise nodes that the
    runtime fuses), ``qoperator`` (operators on integers) or ``weights`` (stored in few bits,
    computed in floating point).
    """
    kinds = Counter(node.op_type for node in nodes(model))
    if any(kind.startswith(_DYNAMIC) and "Quantize" in kind for kind in kinds):
        return "dynamic"
    if any(_computes_in_integers(kind) for kind in kinds):
        return "qoperator"
    if kinds["QuantizeLinear"]:
        return "qdq"
    if kinds["DequantizeLinear"] or kinds.keys() & _WEIGHTS_ONLY:
        return "weights"
    return None


def _computes_in_integers(kind: str) -> bool:
    return kind.startswith("QLinear") or kind.endswith("Integer") or kind in _IN_INTEGERS
