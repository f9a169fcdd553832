"""Results by what they follow from, in a folder that any build may share.

A build that was interrupted finds what it had finished, and one that is asked for again finds
all of it. The name of an entry is the hash of everything that can change the result: files and
samples by digest, settings, the versions of the runtimes and, for durations, the machine. So
nothing is ever out of date; what is no longer asked for is removed when the folder grows.

Entries are written beside their name and renamed, and begin with the digest of what they hold:
one that is not whole counts as missing.
"""

import contextlib
import hashlib
import importlib
import inspect
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

MAX_BYTES: Final = 8 * 1024**3
_VERSIONS_OF: Final = (
    *("stoker", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    *("openvino", "onnx", "torch", "numpy"),
)
_CODE: Final = ("stoker_builder", "stoker_engine", "stoker_contract")
_KERNEL_CHOICE: Final = ("ONEDNN_", "DNNL_", "ATEN_", "OPENBLAS_", "MKL_", "ORT_", "OV_")
_ENTRY: Final = re.compile(r"[a-z]+-[0-9a-f]{64}")
_HALF: Final = re.compile(r"\.new-.+")
_TIMING: Final = "timing"
_STALE_S: Final = 24 * 3600.0
_DIGEST_BYTES: Final = 32


def default_folder() -> Path:
    """Where builds keep their results, unless told otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "stoker" / "builds"


class Cache:
    """A folder of results; without a folder, nothing is kept and nothing is found."""

    def __init__(self, folder: Path | None, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._versions = _versions()
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError:
                self._folder = None  # a build needs no cache
            else:
                _remove_oldest(folder, max_bytes)

    def key(self, kind: str, /, **facts: object) -> str:
        """The name of a result: what it is, and everything that it follows from.

        Args:
            kind: what it is.
            facts: as JSON; what is no JSON is written as text.
        """
        told = {"kind": kind, "facts": facts, "versions": self._versions}
        text = json.dumps(told, sort_keys=True, default=str)
        return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()}"

    def timing(self, hardware: str) -> Path | None:
        """Where TensorRT keeps what it timed on a class of hardware; None when nothing is kept.

        The library reads and replaces the file itself, and refuses one that is not its own.
        """
        if self._folder is None:
            return None
        folder = self._folder / _TIMING
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
            return folder / f"{hardware}.timing"
        return None

    def file(self, key: str, target: Path) -> bool:
        """Write a file that was kept to ``target``; False when there is none."""
        found = self._found(key)
        if found is None:
            return False
        target.write_bytes(found)
        return True

    def keep_file(self, key: str, path: Path) -> None:
        """Keep a copy of a file."""
        if self._folder is not None:
            self._keep(key, path.read_bytes())

    def arrays(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Arrays that were kept."""
        found = self._found(key)
        if found is None:
            return None
        with np.load(io.BytesIO(found), allow_pickle=False) as held:
            return dict(held)

    def keep_arrays(self, key: str, arrays: Arrays) -> None:
        """Keep named arrays of numbers or text."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._keep(key, buffer.getvalue())

    def value(self, key: str) -> Any:  # noqa: ANN401 - JSON
        """A JSON value that was kept, or None."""
        found = self._found(key)
        return None if found is None else json.loads(found)

    def keep_value(self, key: str, value: object) -> None:
        """Keep a JSON value."""
        self._keep(key, json.dumps(value).encode())

    def _found(self, key: str) -> bytes | None:
        """What an entry holds, if it is whole: it begins with its own digest."""
        if self._folder is None:
            return None
        path = self._folder / key
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(OSError):  # somebody else's folder may be read only
            os.utime(path)  # the oldest use is removed first
        digest, held = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return held if hashlib.sha256(held).digest() == digest else None

    def _keep(self, key: str, data: bytes) -> None:
        if self._folder is None:
            return
        # a full disk or a folder that is gone must not end a build that needs no cache
        with contextlib.suppress(OSError):
            handle, name = tempfile.mkstemp(prefix=".new-", dir=self._folder)
            path = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                path.replace(self._folder / key)
            finally:
                path.unlink(missing_ok=True)


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity_of(thing: object) -> str:
    """An object of a user, a metric say, by the code of its classes and by its settings."""
    told = [f"{type(thing).__module__}.{type(thing).__qualname__}"]
    for kind in type(thing).__mro__:
        module = inspect.getmodule(kind)
        with contextlib.suppress(OSError, TypeError):  # built in
            code = inspect.getsource(module) if module is not None else ""
            told.append(hashlib.sha256(code.encode()).hexdigest())
    settings = getattr(thing, "__dict__", None)
    if settings is None:
        settings = {name: getattr(thing, name, None) for name in getattr(thing, "__slots__", ())}
    return " ".join([*told, *(f"{name}={value!r}" for name, value in sorted(settings.items()))])


@cache
def _versions() -> dict[str, str]:
    """Versions, the digest of the code that finds things out, and what chooses kernels."""
    found = {}
    for name in _VERSIONS_OF:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    code = hashlib.sha256()
    for package in _CODE:
        for folder in importlib.import_module(package).__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                code.update(path.read_bytes())
    found["code"] = code.hexdigest()
    chosen = {k: v for k, v in os.environ.items() if k.startswith(_KERNEL_CHOICE)}
    return {**found, **chosen}


def _remove_oldest(folder: Path, max_bytes: int) -> None:
    """Remove entries of ours, never anything else that lies in the folder."""
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            if _ENTRY.fullmatch(path.name):
                entries.append((status.st_mtime, status.st_size, path))
            elif _HALF.fullmatch(path.name) and time.time() - status.st_mtime > _STALE_S:
                path.unlink()
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= max_bytes:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
