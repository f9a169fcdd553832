"""Results by what they follow from, in a folder that any build may share.

A build that was interrupted finds what it had finished, and one that is asked for again finds
all of it. The name of an entry is the hash of everything that can change the result: files and
samples by digest, settings, the versions of the runtimes and, for durations, the machine. So
nothing is ever out of date; what is no longer asked for is removed when the folder grows.

Entries are written beside their name and renamed, so half an entry is never found; one that
can not be read counts as missing.
"""

import contextlib
import hashlib
import inspect
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

MAX_BYTES: Final = 8 * 1024**3
_VERSIONS_OF: Final = ("stoker", "onnxruntime", "openvino", "onnx", "torch", "numpy")


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
            folder.mkdir(parents=True, exist_ok=True)
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

    def file(self, key: str, target: Path) -> bool:
        """Copy a file that was kept to ``target``; False when there is none."""
        found = self._found(key)
        if found is None:
            return False
        with contextlib.suppress(OSError):
            shutil.copyfile(found, target)
            return True
        return False

    def keep_file(self, key: str, path: Path) -> None:
        """Keep a copy of a file."""
        with self._entry(key) as entry:
            if entry is not None:
                shutil.copyfile(path, entry)

    def arrays(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Arrays that were kept."""
        found = self._found(key)
        if found is None:
            return None
        try:
            with np.load(found, allow_pickle=False) as held:
                return dict(held)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def keep_arrays(self, key: str, arrays: Arrays) -> None:
        """Keep named arrays of numbers or text."""
        with self._entry(key) as entry:
            if entry is not None:
                with entry.open("wb") as file:
                    np.savez(file, allow_pickle=False, **arrays)

    def value(self, key: str) -> Any:  # noqa: ANN401 - JSON
        """A JSON value that was kept, or None."""
        found = self._found(key)
        if found is None:
            return None
        try:
            return json.loads(found.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def keep_value(self, key: str, value: object) -> None:
        """Keep a JSON value."""
        with self._entry(key) as entry:
            if entry is not None:
                entry.write_text(json.dumps(value), encoding="utf-8")

    def _found(self, key: str) -> Path | None:
        if self._folder is None:
            return None
        path = self._folder / key
        if not path.is_file():
            return None
        with contextlib.suppress(OSError):  # somebody else's folder may be read only
            os.utime(path)  # the oldest use is removed first
        return path

    @contextmanager
    def _entry(self, key: str) -> Iterator[Path | None]:
        """A place to write to, which becomes the entry when the block ends well."""
        if self._folder is None:
            yield None
            return
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self._folder)
        os.close(handle)
        path = Path(name)
        try:
            yield path
            path.replace(self._folder / key)
        except OSError:
            # a full disk must not end a build that needs no cache
            path.unlink(missing_ok=True)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity_of(thing: object) -> str:
    """An object of a user, a metric say, by its class, the code of that class and its settings."""
    kind = type(thing)
    try:
        source = inspect.getsourcefile(kind)
        code = Path(source).read_bytes() if source else b""
    except (OSError, TypeError):
        code = b""
    return f"{kind.__module__}.{kind.__qualname__} {hashlib.sha256(code).hexdigest()} {thing!r}"


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS_OF:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _remove_oldest(folder: Path, max_bytes: int) -> None:
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= max_bytes:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
