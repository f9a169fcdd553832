"""Writing a release folder: all of it, or nothing."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stoker_builder.errors import BuildCode, BuildError
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Manifest

MANIFEST = "manifest.json"


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a release.

    Args:
        path: the file, or the release folder.

    Raises:
        BuildError: ``MODEL_MISSING`` or ``MODEL_FORMAT``.
    """
    file = path / MANIFEST if path.is_dir() else path
    hint = "give a release folder as `stoker build` writes it"
    try:
        return Manifest.parse(file.read_bytes())
    except OSError as error:
        detail = f"{file} can not be read: {error.strerror or error}"
        raise BuildError(BuildCode.MODEL_MISSING, detail, hint) from None
    except ContractError as error:
        raise BuildError(BuildCode.MODEL_FORMAT, f"{file}: {error.detail}", hint) from None


def check_output(output: Path, release: str) -> None:
    """Refuse to write over something else. Called before the slow work, and again after it.

    Args:
        output: the folder to be written.
        release: ``model/version``; a folder that holds this very release is replaced.

    Raises:
        BuildError: ``OUTPUT_EXISTS``.
    """
    if not output.exists() and not output.is_symlink():
        return
    hint = "choose another --output, or remove it yourself"
    if not output.is_dir() or output.is_symlink():
        raise BuildError(BuildCode.OUTPUT_EXISTS, f"{output} is not a folder", hint)
    if not any(output.iterdir()):
        return
    try:
        present = Manifest.parse((output / MANIFEST).read_bytes()).release
    except (OSError, ContractError):
        detail = f"{output} is not empty and holds no release"
        raise BuildError(BuildCode.OUTPUT_EXISTS, detail, hint) from None
    if present != release:
        detail = f"{output} holds {present}, this is {release}"
        raise BuildError(BuildCode.OUTPUT_EXISTS, detail, hint)


def write_release(output: Path, release: str, files: Mapping[str, bytes | Path]) -> None:
    """Write a release folder durably; what was there before stays until the new one is whole.

    Args:
        output: the folder.
        release: ``model/version``.
        files: name in the folder, to its bytes or to a file to copy.

    Raises:
        BuildError: ``OUTPUT_EXISTS`` or ``OUTPUT_WRITE``; nothing was changed.
    """
    check_output(output, release)
    output = output.absolute()
    scratch: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        fresh = scratch / "new"
        fresh.mkdir(mode=0o755)
        for name, content in files.items():
            _write(fresh / name, content)
        _sync_folder(fresh)
        if output.exists():
            output.rename(scratch / "old")
        fresh.rename(output)
        _sync_folder(output.parent)
    except OSError as error:
        if scratch is not None and (scratch / "old").exists() and not output.exists():
            (scratch / "old").rename(output)
        detail = f"writing {output} failed: {error.strerror or error}"
        raise BuildError(BuildCode.OUTPUT_WRITE, detail, "check space and permissions") from None
    finally:
        if scratch is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(scratch)


def _write(path: Path, content: bytes | Path) -> None:
    with path.open("wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            with content.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
