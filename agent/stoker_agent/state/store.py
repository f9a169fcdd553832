"""Verified blobs by their SHA-256. A blob in the store is whole, or it is not there."""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from stoker_agent.errors import ArtifactError
from stoker_agent.state import durable
from stoker_contract.codes import ReasonCode

CHUNK_BYTES: Final = 1024**2
READ_ONLY: Final = 0o400


class BlobStore:
    """``store/sha256/<digest>``, filled from ``incoming/<digest>.part``."""

    def __init__(self, state_dir: Path) -> None:
        self.blobs = state_dir / "store" / "sha256"
        self.incoming = state_dir / "incoming"
        durable.make_directory(self.blobs)
        durable.make_directory(self.incoming)

    def path(self, digest: str) -> Path:
        """Where a blob is, or will be."""
        return self.blobs / digest

    def part(self, digest: str) -> Path:
        """Where a blob is while it is fetched."""
        return self.incoming / f"{digest}.part"

    def holds(self, digest: str, length: int) -> bool:
        """Whether the blob is there and still what its name says; a rotten one is removed."""
        path = self.path(digest)
        try:
            if path.stat().st_size == length and file_digest(path) == digest:
                return True
        except FileNotFoundError:
            return False
        durable.remove(path)
        return False

    def missing_bytes(self, digest: str, length: int) -> int:
        """How many bytes of a blob are still to be fetched."""
        if self.path(digest).exists():
            return 0
        try:
            return max(length - self.part(digest).stat().st_size, 0)
        except FileNotFoundError:
            return length

    def publish(self, digest: str, length: int) -> Path:
        """Move a finished part into the store, if its bytes are what was signed.

        Raises:
            ArtifactError: ``DIGEST_MISMATCH``; the part is removed, nothing was published.
        """
        path, part = self.path(digest), self.part(digest)
        if not part.exists() and self.holds(digest, length):
            return path
        try:
            found_length, found = part.stat().st_size, file_digest(part)
        except FileNotFoundError:
            found_length, found = 0, ""
        if (found_length, found) != (length, digest):
            durable.remove(part)
            detail = f"{digest[:12]}: {found_length} bytes with digest {found[:12] or 'none'}"
            raise ArtifactError(ReasonCode.DIGEST_MISMATCH, detail)
        _sync(part)
        part.chmod(READ_ONLY)
        durable.publish(part, path)
        return path

    def collect_garbage(self, keep: Iterable[str]) -> list[str]:
        """Remove every blob and part whose digest is not in ``keep``; return what went."""
        kept = set(keep)
        gone = []
        for path in (*self.blobs.iterdir(), *self.incoming.iterdir()):
            if path.name.removesuffix(".part") in kept:
                continue
            with suppress(OSError):
                path.unlink()
                gone.append(path.name)
        return sorted(gone)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
