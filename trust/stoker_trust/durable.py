"""Files that are whole or absent after a power cut: temp, sync, rename, sync the folder."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_CHUNK_BYTES = 1024 * 1024
PUBLIC_MODE = 0o644
SECRET_MODE = 0o600


def write(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Put ``data`` at ``path``, replacing what was there in one step."""
    _write_chunks(path, (data,), mode)


def copy(source: Path, path: Path) -> tuple[str, int]:
    """Copy a file and return the SHA-256 and the length of what was copied."""
    digest, length = hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal length
        for chunk in read_chunks(source):
            digest.update(chunk)
            length += len(chunk)
            yield chunk

    _write_chunks(path, counted(), PUBLIC_MODE)
    return digest.hexdigest(), length


def digest_of(path: Path) -> tuple[str, int]:
    """The SHA-256 and the length of a file."""
    digest, length = hashlib.sha256(), 0
    for chunk in read_chunks(path):
        digest.update(chunk)
        length += len(chunk)
    return digest.hexdigest(), length


def read_chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a megabyte at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _write_chunks(path: Path, chunks: Iterable[bytes], mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
