"""Taking in an ONNX file: what can not travel is refused, what is old or free is settled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
import onnx.version_converter

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.models.bounded import DEFAULT_BOUNDS, Bounds, run_bounded
from stoker_builder.models.onnx_file import check_policy, load_onnx
from stoker_builder.models.onnx_parts import opset_of, strip
from stoker_builder.models.prequantised import scheme_of
from stoker_builder.models.shapes import fix_shapes
from stoker_builder.models.source import Inputs, SourceModel, Taken, io_of

INT8_OPSET: Final = 13  # before it there are no scales per channel
UPGRADE_TOLERANCE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Settled:
    """A file that was read, checked and written anew, before anything of it has run.

    Attributes:
        upgraded: the same at a newer opset, where that is worth a try.
    """

    model: onnx.ModelProto
    digest: str
    notes: tuple[str, ...]
    upgraded: onnx.ModelProto | None


def from_onnx(path: Path, example: Inputs, target: Path, bounds: Bounds = DEFAULT_BOUNDS) -> Taken:
    """Take in a file of the user as ``target``, and run it once.

    Raises:
        BuildError: ``MODEL_MISSING``, ``MODEL_FORMAT``, ``MODEL_TOO_LARGE``,
            ``EXTERNAL_DATA``, ``UNSUPPORTED_OP``, ``DATA_MISMATCH`` or ``EXHAUSTED``.
    """
    settled = settle(path, example, target)
    model, notes = settled.model, settled.notes
    if settled.upgraded and _is_as_good(settled.upgraded, target, example, bounds):
        notes = (*notes, f"opset {opset_of(model)} converted to {INT8_OPSET}")
        model = settled.upgraded
        _save(model, target)
    else:
        _try(target, example, bounds)
    source = SourceModel(
        path=target,
        kind="onnx",
        digest=settled.digest,
        opset=opset_of(model),
        io=io_of(Session(target)),
        notes=notes,
    )
    return Taken(source, scheme_of(model))


def settle(path: Path, example: Inputs, target: Path) -> Settled:
    """Read a file, check it, fix what it leaves free, and write it as ``target``.

    Raises:
        BuildError: as :func:`from_onnx`, without ``EXHAUSTED``.
    """
    try:
        loaded = load_onnx(path)
        notes = (*_drop_defaults(loaded.model), *fix_shapes(loaded.model, example))
        strip(loaded.model)
        upgraded = _upgraded(loaded.model)
        _save(loaded.model, target)
    except UnicodeDecodeError as error:  # names are only decoded when they are looked at
        detail = f"{path.name} has a name that is not text ({error.reason})"
        raise BuildError(BuildCode.MODEL_FORMAT, detail, "export the model again") from None
    return Settled(loaded.model, loaded.digest, notes, upgraded)


def _drop_defaults(model: onnx.ModelProto) -> tuple[str, ...]:
    """Make constants of the inputs that have a value, as all weights had before IR version 4.

    An input with a value could be overridden, so nothing that depends on it can be folded.
    """
    held = {initializer.name for initializer in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in held]
    dropped = len(model.graph.input) - len(kept)
    if dropped:
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, 4)
    return (f"{dropped} inputs with values of their own became constants",) if dropped else ()


def _upgraded(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model at an opset that can be quantised per channel; None where it is, or can not."""
    if opset_of(model) >= INT8_OPSET:
        return None
    try:
        found = onnx.version_converter.convert_version(model, INT8_OPSET)
        onnx.checker.check_model(found)
    except Exception:  # noqa: BLE001  it raises whatever it likes; an old model may run as it is
        return None
    found.ir_version = max(found.ir_version, 7)
    return found


def _is_as_good(upgraded: onnx.ModelProto, old: Path, example: Inputs, bounds: Bounds) -> bool:
    path = old.with_name(f"{old.stem}-upgraded.onnx")
    _save(upgraded, path)
    try:
        difference = _try(path, example, bounds, against=old)
    except BuildError as error:
        if error.code is BuildCode.EXHAUSTED:
            raise
        return False
    return difference <= UPGRADE_TOLERANCE


def _try(path: Path, example: Inputs, bounds: Bounds, against: Path | None = None) -> float:
    """Run a file once where it can do no harm."""
    check_policy(path)
    request = {
        "model": str(path),
        "against": str(against) if against else None,
        "code": BuildCode.UNSUPPORTED_OP,
        "hint": "export with an opset and operators that ONNX Runtime has on the CPU",
    }
    answer = run_bounded("trial", request, example, path.with_suffix(".trial"), bounds)
    found = answer.get("difference")
    return float(found) if isinstance(found, int | float) else 0.0


def _save(model: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.save(model, path)
    except Exception as error:  # protobuf raises a class of its own for each implementation
        detail = f"the model can not be written as one file: {str(error)[:200]}"
        hint = "one ONNX file holds 2 GiB: store the weights in FP16, or divide the model"
        raise BuildError(BuildCode.MODEL_TOO_LARGE, detail, hint) from error
