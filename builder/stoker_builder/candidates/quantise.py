"""Making INT8 candidates: calibrate once, quantise once per recipe."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from stoker_builder.candidates.recipes import Recipe
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.split import Part

_MULTIPLYING: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_EXPLICIT: Final[Mapping[str, Any]] = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(_MULTIPLYING),
}
_CONVOLUTION_RANK = 3  # a weight is [out, in / groups, spatial...]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A model that is ready to be quantised, and the ranges of its activations."""

    model: Path
    ranges: Path


class Quantiser:
    """Makes candidates from one source. The calibration samples are run once, for the first."""

    def __init__(self, source: Path, calibration: Part, scratch: Path) -> None:
        self._source = source
        self._calibration = calibration
        self._scratch = scratch
        self._prepared: Path | None = None

    def make(self, recipe: Recipe, advance: Callable[[], object] = lambda: None) -> Path:
        """Quantise.

        Args:
            recipe: how.
            advance: called for each calibration sample that is run (the first time only).

        Raises:
            BuildError: ``QUANTISE``; or what reading the calibration samples raises.
        """
        path = self._scratch / f"{recipe.name}.onnx"
        try:
            with _quiet_logging():
                model = self._prepare()
                self._quantise(model, recipe, path, advance)
        except BuildError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
            detail = f"{recipe.name}: {type(error).__name__}: {reason}"
            hint = "build with --precision fp32, or give a model that ONNX Runtime can quantise"
            raise BuildError(BuildCode.QUANTISE, detail, hint) from error
        return path

    def _prepare(self) -> Path:
        if self._prepared is None:
            path = self._scratch / "prepared.onnx"
            # folds constants and padding: without it a quantised graph can be half as fast again
            quant_pre_process(str(self._source), str(path), skip_symbolic_shape=True)
            _name_every_node(path)
            self._prepared = path
        return self._prepared

    def _quantise(
        self, model: Path, recipe: Recipe, path: Path, advance: Callable[[], object]
    ) -> None:
        overrides, excluded = _overflow_safe(model) if recipe.overflow_safe else ({}, [])
        quantize_static(
            str(model),
            str(path),
            _Reader(self._calibration, advance),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8 if recipe.activations == "u8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=recipe.per_channel,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=str(self._scratch / "ranges.json"),
            nodes_to_exclude=excluded,
            op_types_to_quantize=list(_MULTIPLYING) if recipe.explicit else None,
            extra_options={
                **({"TensorQuantOverrides": overrides} if overrides else {}),
                **(_EXPLICIT if recipe.explicit else {}),
            },
        )


def _overflow_safe(path: Path) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Which weights get seven bits, and which nodes stay in FP32."""
    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    seven_bits = {
        "quant_type": QuantType.QInt8,
        "axis": 0,
        "reduce_range": True,
        "symmetric": True,
    }
    overrides = {
        node.input[1]: [dict(seven_bits)]
        for node in convolutions[1:]
        if not _is_depthwise(shapes.get(node.input[1], ()))
    }
    return overrides, [node.name for node in convolutions[:1]]


def _is_depthwise(shape: tuple[int, ...]) -> bool:
    return len(shape) >= _CONVOLUTION_RANK and shape[1] == 1 and shape[0] > 1


def _name_every_node(path: Path) -> None:
    """Give unnamed nodes a name: they are excluded and reported by it."""
    model = onnx.load(path)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    onnx.save(model, path)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, part: Part, advance: Callable[[], object]) -> None:
        self._inputs = self._read(part, advance)

    @staticmethod
    def _read(
        part: Part, advance: Callable[[], object]
    ) -> Iterator[dict[str, NDArray[np.generic]]]:
        for position in range(len(part)):
            yield dict(part[position].inputs)
            advance()

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self._inputs, None)


class _quiet_logging:  # noqa: N801  a context manager, used like a function
    """The quantiser logs advice through the root logger that the builder already follows."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *exc: object) -> None:
        logging.disable(self._before)
