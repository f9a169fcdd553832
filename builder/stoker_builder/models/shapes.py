"""Fixing the dimensions that a model leaves free."""

from collections.abc import Mapping

import numpy as np
import onnx

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Inputs

Shapes = Mapping[str, tuple[int, ...]]


def check_example(example: Inputs) -> None:
    """See that a sample has arrays of plain numbers, which every runtime can take.

    Raises:
        BuildError: ``DATA_MISMATCH``.
    """
    for name, array in example.items():
        given: object = array  # a user's sample may hold anything
        numeric = isinstance(given, np.ndarray) and given.dtype.kind in "biuf"
        if not numeric or not array.dtype.isnative:
            kind = array.dtype if isinstance(given, np.ndarray) else type(given).__name__
            detail = f"input {name} of the first sample is {kind}, not an array of plain numbers"
            hint = "return numpy arrays of booleans, integers or floats, in this machine's order"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)


def check_shapes(shapes: Shapes, example: Inputs) -> None:
    """See that the samples have the shapes that were asked for.

    Raises:
        BuildError: ``DATA_MISMATCH``.
    """
    for name, shape in shapes.items():
        if name not in example:
            detail = f"--shape names {name}, the samples have {sorted(example)}"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, "name an input of the samples")
        if example[name].shape != shape:
            detail = f"--shape asks for {name} as {shape}, the samples have {example[name].shape}"
            hint = "make the samples fit; they carry the model's own batch axis"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)


def fix_shapes(model: onnx.ModelProto, example: Inputs) -> tuple[str, ...]:
    """Replace every free dimension of the inputs by that of the example, in place.

    Returns:
        What was fixed, in words.

    Raises:
        BuildError: ``DATA_MISMATCH``, when the example does not fit the model.
    """
    held = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    wanted = {value.name for value in inputs}
    if wanted != set(example):
        detail = f"the model takes {sorted(wanted)}, the samples have {sorted(example)}"
        hint = "name the samples' inputs as the model does"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)
    notes: list[str] = []
    sizes: dict[str, int] = {}
    for value in inputs:
        _check_type(value, example)
        notes += _fix(value, example[value.name].shape, sizes)
    if notes:
        _fix_outputs(model, sizes)
    return tuple(notes)


def _check_type(value: onnx.ValueInfoProto, example: Inputs) -> None:
    given = example[value.name].dtype
    try:
        wanted = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    except (KeyError, TypeError, ValueError):
        detail = f"input {value.name} is no tensor of numbers"
        hint = "only plain numeric tensors can cross the serving protocol"
        raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint) from None
    if given != wanted:
        detail = f"input {value.name} is {wanted}, the samples have {given}"
        hint = f"convert the samples with .astype({wanted.name!r})"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)


def _fix(value: onnx.ValueInfoProto, shape: tuple[int, ...], sizes: dict[str, int]) -> list[str]:
    dims = value.type.tensor_type.shape.dim
    hint = "make the samples fit; they carry the model's own batch axis"
    if len(dims) != len(shape):
        detail = f"input {value.name} has {len(dims)} dimensions, the samples {len(shape)}"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)
    notes = []
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        name = dim.dim_param
        known = sizes.get(name, size) if name else size
        # exporters of old wrote a free dimension as -1 or 0
        fixed = not name and dim.HasField("dim_value") and dim.dim_value > 0
        if size != (dim.dim_value if fixed else known):
            wanted = dim.dim_value if fixed else f"{known} ({name!r} of another input)"
            detail = f"dimension {axis} of input {value.name} is {wanted}, the samples have {size}"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)
        if not fixed:
            if name:
                sizes[name] = size
            notes.append(f"input {value.name}: free dimension {axis} fixed at {size}")
            dim.dim_value = size
    return notes


def _fix_outputs(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    # inferred shapes speak of dimensions that no longer exist
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
            elif dim.dim_value <= 0:
                dim.Clear()
    _infer_outputs(model)


def _infer_outputs(model: onnx.ModelProto) -> None:
    """Fill in the dimensions of the outputs that follow from those of the inputs."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001  a shape that nobody can infer stays free
        return
    for value, found in zip(model.graph.output, inferred.graph.output, strict=True):
        dims = value.type.tensor_type.shape.dim
        for dim, other in zip(dims, found.type.tensor_type.shape.dim, strict=False):
            if not dim.dim_value and other.dim_value > 0:
                dim.dim_value = other.dim_value
