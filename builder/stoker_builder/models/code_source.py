"""Taking in PyTorch's own files, whose formats can run code: in a bounded child, or not at all.

A state dict is read there without running any code; a whole model runs its code there, if it
is trusted. Either way only a file without code comes back, and it is checked as any other.
"""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.bounded import Bounds, run_bounded
from stoker_builder.models.onnx_source import from_onnx
from stoker_builder.models.source import Inputs, Taken, Terms

_SPARE_BYTES: Final = 64 * 2**20  # an archive stores its tensors; only code in it is deflated


def from_code(path: Path, example: Inputs, scratch: Path, terms: Terms) -> Taken:
    """Load and export a ``torch.export`` program, TorchScript, or a pickled module.

    Raises:
        BuildError: ``UNSAFE_FORMAT`` when it is not trusted, ``MODEL_MISSING``,
            ``MODEL_FORMAT``, ``ISOLATION``, ``EXHAUSTED``; or what exporting raises.
    """
    if not terms.trust_code:
        detail = f"{path.name}: this format can run code when it is loaded"
        hint = (
            "save the weights as .safetensors and name the factory that makes the model;"
            " or, if you trust whoever made the file, --trust-model-code"
        )
        raise BuildError(BuildCode.UNSAFE_FORMAT, detail, hint)
    _check(path, BuildCode.MODEL_MISSING, BuildCode.MODEL_FORMAT)
    folder = scratch / "convert"
    request = {
        "model": str(path.resolve()),
        "runs_code": True,
        "code": BuildCode.MODEL_FORMAT,
        "hint": "load it in Python to see where; classes of a pickled module must be importable",
    }
    answer = run_bounded("convert", request, example, folder, terms.bounds)
    exported = folder / "exported.onnx"
    if exported.is_symlink():
        detail = f"{path.name} left a link where its export should be"
        raise BuildError(BuildCode.MODEL_FORMAT, detail, "do not trust whoever made this file")
    taken = from_onnx(exported, example, scratch / "source.onnx", terms.bounds)
    notes = [*taken.source.notes, f"exported from {path.name}, whose code ran without network"]
    if "files" in str(answer.get("unprotected")):
        notes.append("this kernel has no Landlock: that code could write to your files")
    return replace(taken, source=replace(taken.source, kind="torch", notes=tuple(notes)))


def weights_of(path: Path, scratch: Path, bounds: Bounds) -> Path:
    """Write a state dict as safetensors; no code of it runs.

    Raises:
        BuildError: ``WEIGHTS`` or ``EXHAUSTED``.
    """
    _check(path, BuildCode.WEIGHTS, BuildCode.WEIGHTS)
    folder = scratch / "weights"
    hint = "save the state dict alone: torch.save(model.state_dict(), path), or as .safetensors"
    request = {"model": str(path.resolve()), "code": BuildCode.WEIGHTS, "hint": hint}
    run_bounded("weights", request, {}, folder, bounds)
    return folder / "weights.safetensors"


def _check(path: Path, missing: BuildCode, malformed: BuildCode) -> None:
    if not path.is_file():
        raise BuildError(missing, f"there is no file {path}", "check the path")
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        detail = f"{path.name} is a broken archive ({error})"
        raise BuildError(malformed, detail, "save it again") from None
    if unpacked > path.stat().st_size + _SPARE_BYTES:
        detail = f"{path.name} would unpack to {unpacked} bytes: PyTorch stores, it does not pack"
        raise BuildError(malformed, detail, "save it again with torch.save")
