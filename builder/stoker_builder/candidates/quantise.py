"""Making INT8 candidates: calibrate once, quantise once per recipe."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnx
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from stoker_builder.candidates.bias import correct_biases
from stoker_builder.candidates.measured_bias import SAMPLES, can_be_measured, measure_biases
from stoker_builder.candidates.orders import (
    Order,
    load_means,
    load_samples,
    save_means,
    save_samples,
)
from stoker_builder.candidates.overflow import is_depthwise, make_overflow_free
from stoker_builder.candidates.preparing import prepared
from stoker_builder.candidates.ranges import Observer, save_ranges
from stoker_builder.candidates.recipes import MULTIPLYING, Ranges, Recipe
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.split import Part

_FLOAT: Final = onnx.TensorProto.FLOAT


class Quantiser:
    """Makes candidates from one source. The calibration samples are run once for each graph."""

    def __init__(self, source: Path, calibration: Part, scratch: Path) -> None:
        self._source = source
        self._calibration = calibration
        self._scratch = scratch
        self._observers: dict[Path, Observer] = {}

    def make(self, recipe: Recipe, advance: Callable[[], object] = lambda: None) -> Path:
        """Quantise.

        Args:
            recipe: how.
            advance: called for each calibration sample that is run (the first time only).

        Raises:
            BuildError: ``QUANTISE``; or what reading the calibration samples raises.
        """
        order = self.order(recipe, advance)
        carry_out(order)
        return order.path

    def order(self, recipe: Recipe, advance: Callable[[], object] = lambda: None) -> Order:
        """Run what has to be run of the calibration samples, and say what is to be made.

        Args and errors are those of :meth:`make`.
        """
        path = self._scratch / f"{recipe.name}.onnx"
        with _as_quantise_error(recipe):
            model = prepared(self._source, self._scratch, as_exported=recipe.as_exported)
            if recipe.dynamic:
                return Order(recipe, model, path)
            return Order(
                recipe,
                model,
                path,
                ranges=self._ranges(model, recipe.ranges, advance),
                means=self._means(model, advance) if recipe.corrects_bias != "no" else None,
                samples=self._samples() if recipe.corrects_bias == "measured" else None,
            )

    def _ranges(self, model: Path, how: Ranges, advance: Callable[[], object]) -> Path:
        path = self._scratch / f"{model.stem}-ranges-{how}.json"
        if not path.exists():
            save_ranges(self._observed(model, advance).ranges(how), path)
        return path

    def _means(self, model: Path, advance: Callable[[], object]) -> Path:
        path = self._scratch / f"{model.stem}-means.npz"
        if not path.exists():
            save_means(self._observed(model, advance).means(), path)
        return path

    def _samples(self) -> Path:
        path = self._scratch / "measured-samples.npz"
        if not path.exists():
            part = self._calibration
            count = min(SAMPLES, len(part))
            save_samples([part[position].inputs for position in range(count)], path)
        return path

    def _observed(self, model: Path, advance: Callable[[], object]) -> Observer:
        if model not in self._observers:
            self._observers[model] = Observer(model, self._calibration, self._scratch, advance)
        return self._observers[model]


def carry_out(order: Order) -> None:
    """Make the file that an order asks for.

    Raises:
        BuildError: ``QUANTISE``.
    """
    recipe = order.recipe
    with _as_quantise_error(recipe):
        with tempfile.TemporaryDirectory(prefix="stk", dir=order.path.parent) as folder:
            model = _in_a_folder_of_its_own(order.model, Path(folder))
            if recipe.dynamic:
                _quantise_dynamically(model, recipe, order.path)
            else:
                _quantise_statically(replace(order, model=model))
        if recipe.overflow == "pairs":
            make_overflow_free(order.path, order.model, order.path)
        _correct(order)


def _in_a_folder_of_its_own(model: Path, folder: Path) -> Path:
    """ONNX Runtime writes beside the model, under one name for all that quantise it."""
    own = folder / model.name
    try:
        own.hardlink_to(model)
    except OSError:
        shutil.copyfile(model, own)
    return own


def _correct(order: Order) -> None:
    if order.samples is not None and can_be_measured(order.path):
        with tempfile.TemporaryDirectory(prefix="stk") as scratch:
            samples = load_samples(order.samples)
            measure_biases(order.path, order.model, samples, Path(scratch))
    elif order.means is not None:
        correct_biases(order.path, order.model, load_means(order.means))


def _quantise_statically(order: Order) -> None:
    recipe = order.recipe
    overrides, excluded = _seven_bits(order.model) if recipe.overflow == "seven-bits" else ({}, [])
    if recipe.min_channels > 1:
        excluded += _narrow(order.model, recipe.min_channels)
    if recipe.signed_inputs:
        overrides |= _signed_inputs(order.model)
    options: dict[str, Any] = {"TensorQuantOverrides": overrides} if overrides else {}
    if recipe.symmetric:
        options |= {"ActivationSymmetric": True, "WeightSymmetric": True}
    if recipe.inputs_only:
        options |= {
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": list(MULTIPLYING),
            "MatMulConstBOnly": True,
        }
    quantize_static(
        str(order.model),
        str(order.path),
        None,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8 if recipe.activations == "u8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=recipe.per_channel,
        calibrate_method=CalibrationMethod.MinMax,
        calibration_cache_path=str(order.ranges),
        nodes_to_exclude=excluded,
        op_types_to_quantize=list(recipe.operators) if recipe.operators else None,
        extra_options=options,
    )


@contextlib.contextmanager
def _as_quantise_error(recipe: Recipe) -> Iterator[None]:
    """Other people's tools raise anything."""
    try:
        with _quiet_logging():
            yield
    except BuildError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
        detail = f"{recipe.name}: {type(error).__name__}: {reason}"
        hint = "build with --precision fp32, or give a model that ONNX Runtime can quantise"
        raise BuildError(BuildCode.QUANTISE, detail, hint) from error


def _quantise_dynamically(model: Path, recipe: Recipe, path: Path) -> None:
    quantize_dynamic(
        str(model),
        str(path),
        op_types_to_quantize=list(recipe.operators) if recipe.operators else None,
        per_channel=recipe.per_channel,
        weight_type=QuantType.QInt8,
        extra_options={
            "MatMulConstBOnly": True,
            # without it a tensor that shape inference lost stops the whole
            "DefaultTensorType": onnx.TensorProto.FLOAT,
        },
    )


def _seven_bits(path: Path) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
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
        if not is_depthwise(shapes.get(node.input[1], ()))
    }
    return overrides, [node.name for node in convolutions[:1]]


def _narrow(path: Path, min_channels: int) -> list[str]:
    """Convolutions with few output channels."""
    graph = onnx.load(path, load_external_data=False).graph
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}

    def channels(node: onnx.NodeProto) -> int:
        """What it makes at once; ``min_channels`` where that is not known."""
        shape = shapes.get(node.input[1], ())
        if len(shape) < 2:  # noqa: PLR2004  of a weight that is computed nothing is known
            return min_channels
        if node.op_type == "Conv":
            return shape[0]
        groups = (attribute.i for attribute in node.attribute if attribute.name == "group")
        return shape[1] * int(next(groups, 1))

    convolutions = [node for node in graph.node if node.op_type in {"Conv", "ConvTranspose"}]
    return [node.name for node in convolutions if channels(node) < min_channels]


def _signed_inputs(path: Path) -> dict[str, list[dict[str, Any]]]:
    graph = onnx.load(path, load_external_data=False).graph
    given = {tensor.name for tensor in graph.initializer}
    taken = [one for one in graph.input if one.name not in given]
    floats = [one.name for one in taken if one.type.tensor_type.elem_type == _FLOAT]
    around_zero = {"quant_type": QuantType.QInt8, "symmetric": True}
    return {name: [dict(around_zero)] for name in floats}


class _quiet_logging:  # noqa: N801  a context manager, used like a function
    """The quantiser logs advice through the root logger that the builder already follows."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *exc: object) -> None:
        logging.disable(self._before)
