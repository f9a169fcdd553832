"""Reading and checking an ONNX file, without running anything of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
import onnx.inliner

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.bounded import MAX_ONNX_BYTES
from stoker_builder.models.external_data import inline
from stoker_builder.models.onnx_parts import names, nodes, opset_of, tensors
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Limits
from stoker_contract.onnx_policy import ALLOWED_DOMAINS, scan_onnx

_EXPORT_AGAIN: Final = "export the model again"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A model in memory, and the SHA-256 of all the bytes that it was read from."""

    model: onnx.ModelProto
    digest: str


def load_onnx(path: Path) -> OnnxFile:
    """Read and check a file; weights beside it and local functions are put in their places.

    Raises:
        BuildError: ``MODEL_MISSING``, ``MODEL_FORMAT``, ``MODEL_TOO_LARGE``,
            ``EXTERNAL_DATA`` or ``UNSUPPORTED_OP`` (an operator that no device has).
    """
    data = _read(path)
    seen = hashlib.sha256(data)
    model = _parse(data, path)
    if not model.graph.node:
        raise _malformed(path, "has no graph")
    if not all(isinstance(name, str) for name in names(model)):
        raise _malformed(path, "has a name that is not text")
    inline(tensors(model), path, seen)
    _refuse_unknown_operators(model, path)
    _refuse_newer(model, path)
    try:
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except onnx.checker.ValidationError as error:
        raise _malformed(path, f"is not valid ONNX: {_first_line(error)}") from None
    except Exception as error:  # noqa: BLE001  both raise classes of their own
        raise _malformed(path, f"can not be checked: {_first_line(error)}") from None
    return OnnxFile(model, seen.hexdigest())


def check_policy(path: Path) -> None:
    """Look at a file as devices will before they load it.

    Raises:
        BuildError: ``UNSUPPORTED_OP``, when they would refuse it.
    """
    try:
        scan_onnx(path.read_bytes(), Limits())
    except ContractError as error:
        detail = f"devices would refuse the model: {error.detail}"
        hint = "export a smaller, flatter graph with standard operators"
        raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint) from None


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            detail = f"{path} is not a file" if path.exists() else f"there is no file {path}"
            raise BuildError(BuildCode.MODEL_MISSING, detail, "check the path of --model")
        if path.stat().st_size > MAX_ONNX_BYTES:
            detail = f"{path.name} is larger than the 2 GiB that one ONNX file can hold"
            hint = "store the weights in FP16, or divide the model"
            raise BuildError(BuildCode.MODEL_TOO_LARGE, detail, hint)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero in it
        detail = f"{str(path)[:200]}: {getattr(error, 'strerror', None) or error}"
        raise BuildError(BuildCode.MODEL_MISSING, detail, "check the path of --model") from None


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    try:
        return onnx.load_from_string(data)
    except Exception as error:  # noqa: BLE001  the parser raises classes of its own
        raise _malformed(path, f"is not an ONNX file ({_first_line(error)})") from None


def _refuse_unknown_operators(model: onnx.ModelProto, path: Path) -> None:
    local = {(function.domain, function.name) for function in model.functions}
    for node in nodes(model):
        known = node.domain in ALLOWED_DOMAINS or (node.domain, node.op_type) in local
        if not known:
            detail = f"{path.name} uses {node.domain}.{node.op_type}, which no device has"
            hint = "export with standard operators; custom operator libraries are not loaded"
            raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint)


def _refuse_newer(model: onnx.ModelProto, path: Path) -> None:
    known = onnx.defs.onnx_opset_version()
    for what, found, newest in (
        ("opset", opset_of(model), known),
        ("IR version", model.ir_version, onnx.IR_VERSION),
    ):
        if found > newest:
            detail = f"{path.name} has {what} {found}; onnx {onnx.__version__} knows {newest}"
            hint = f"export with opset_version={min(known, 18)}, or install a newer onnx"
            raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint)


def _malformed(path: Path, what: str) -> BuildError:
    return BuildError(BuildCode.MODEL_FORMAT, f"{path.name} {what}", _EXPORT_AGAIN)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
