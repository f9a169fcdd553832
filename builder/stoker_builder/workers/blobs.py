"""Bytes by their digest: written beside their name, checked, made durable, renamed.

A name in the folder is a promise that the bytes are whole. Service and workers keep theirs alike.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.documents import Blob

_CHUNK_BYTES: Final = 1024 * 1024
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def describe(path: Path) -> Blob:
    """What a file is as a blob."""
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            length += len(chunk)
    return Blob(digest=digest.hexdigest(), length=length)


def write_checked(path: Path, expected: Blob, chunks: Iterable[bytes]) -> None:
    """Put bytes at ``path`` if they are those that are expected; else nothing is there.

    Raises:
        BuildError: ``BLOB_DAMAGED``.
        OSError: the disk's.
    """
    descriptor, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    scratch = Path(name)
    try:
        digest, length = hashlib.sha256(), 0
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                length += len(chunk)
                if length > expected.length:
                    break
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        _check(expected, digest.hexdigest(), length)
        scratch.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()
    _sync_folder(path.parent)


class BlobStore:
    """A folder of blobs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".part-*"):
            part.unlink()  # of a process that was killed

    def path(self, digest: str) -> Path | None:
        """Where the bytes are; None when they are not here."""
        path = self._folder / digest
        return path if _DIGEST.fullmatch(digest) and path.is_file() else None

    def has(self, blob: Blob) -> bool:
        """Whether the very bytes are here."""
        path = self.path(blob.digest)
        return path is not None and path.stat().st_size == blob.length

    def drop(self, digest: str) -> None:
        """Forget bytes that turned out not to be what their name says."""
        (self._folder / digest).unlink(missing_ok=True)

    def put(self, blob: Blob, chunks: Iterable[bytes]) -> None:
        """Keep bytes. What is here already is read and compared all the same.

        Raises:
            BuildError: ``BLOB_DAMAGED``, and nothing is kept.
        """
        write_checked(self._folder / blob.digest, blob, chunks)


def _check(expected: Blob, digest: str, length: int) -> None:
    if length == expected.length and digest == expected.digest:
        return
    if length != expected.length:
        more = "more" if length > expected.length else f"{length}"
        found = f"{expected.length} bytes were promised, {more} came"
    else:
        found = f"they have the digest {digest[:16]}…"
    detail = f"these are not the bytes {expected.digest[:16]}…: {found}"
    raise BuildError(BuildCode.BLOB_DAMAGED, detail, "send them again; nothing was kept")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
