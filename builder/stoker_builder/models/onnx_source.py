"""Taking in an ONNX file: refuse what can not travel, fix the shapes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.source import Inputs, SourceModel, io_of

KNOWN_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def from_onnx(path: Path, example: Inputs, scratch: Path) -> SourceModel:
    """Take in a file of the user.

    Raises:
        BuildError: ``MODEL_MISSING``, ``MODEL_FORMAT``, ``EXTERNAL_DATA``,
            ``UNSUPPORTED_OP`` or ``DATA_MISMATCH``.
    """
    try:
        model = load_onnx(path)
        notes = fix_shapes(model, example)
        strip(model)
    except UnicodeDecodeError as error:  # names are only decoded when they are looked at
        detail = f"{path.name} has a name that is not text ({error.reason})"
        raise BuildError(BuildCode.MODEL_FORMAT, detail, "export the model again") from None
    target = scratch / "source.onnx"
    onnx.save(model, target)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return SourceModel(
        path=target,
        kind="onnx",
        digest=digest,
        opset=opset_of(model),
        io=io_of(Session(target)),
        notes=notes,
    )


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file, without running anything of it.

    Raises:
        BuildError: ``MODEL_MISSING``, ``MODEL_FORMAT``, ``EXTERNAL_DATA`` or
            ``UNSUPPORTED_OP`` (an operator domain that no device has).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        detail = f"{path}: {error.strerror}"
        raise BuildError(BuildCode.MODEL_MISSING, detail, "check the path of --model") from None
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # noqa: BLE001  the parser raises classes of its own
        detail = f"{path.name} is not an ONNX file ({error})"
        raise BuildError(BuildCode.MODEL_FORMAT, detail, "export the model again") from None
    if not model.graph.node:
        detail = f"{path.name} has no graph"
        raise BuildError(BuildCode.MODEL_FORMAT, detail, "export the model again")
    _refuse_external_data(model, path)
    _refuse_unknown_domains(model, path)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        detail = f"{path.name} is not valid ONNX: {str(error).strip().splitlines()[0][:300]}"
        raise BuildError(BuildCode.MODEL_FORMAT, detail, "export the model again") from None
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove what exporters write for debugging, in place.

    Stack traces name files of the machine that exported, and make two exports of one model
    differ. What the model's author put on the model itself stays.
    """
    for graph in _graphs(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for part in (*graph.node, *graph.initializer, *_values(graph)):
            part.doc_string = ""
            del part.metadata_props[:]


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info


def opset_of(model: onnx.ModelProto) -> int:
    """The opset of the standard operators."""
    return max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=0)


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
    notes, names = [], {}
    for value in inputs:
        shape = example[value.name].shape
        dims = value.type.tensor_type.shape.dim
        if len(dims) != len(shape):
            detail = f"input {value.name} has {len(dims)} dimensions, the samples {len(shape)}"
            hint = "samples carry the model's own batch axis"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)
        for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            if dim.dim_param or not dim.HasField("dim_value"):
                names[dim.dim_param] = size
                notes.append(f"input {value.name}: free dimension {axis} fixed at {size}")
                dim.dim_value = size
    if notes:
        _fix_outputs(model, names)
    return tuple(notes)


def _fix_outputs(model: onnx.ModelProto, names: dict[str, int]) -> None:
    # inferred shapes speak of dimensions that no longer exist
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names and dim.dim_param:
                dim.dim_value = names[dim.dim_param]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)


def _refuse_external_data(model: onnx.ModelProto, path: Path) -> None:
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                detail = f"{path.name} keeps {tensor.name} in another file"
                hint = (
                    "save it as one file: onnx.save(onnx.load(path), out), or external_data=False"
                )
                raise BuildError(BuildCode.EXTERNAL_DATA, detail, hint)


def _refuse_unknown_domains(model: onnx.ModelProto, path: Path) -> None:
    local = {function.domain for function in model.functions}
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.domain not in KNOWN_DOMAINS | local:
                detail = f"{path.name} uses {node.domain}.{node.op_type}, which no device has"
                hint = "export with standard operators; custom operator libraries are not loaded"
                raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint)
