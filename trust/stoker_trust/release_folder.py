"""A release folder, as the builder leaves it: a manifest and the files it names."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_contract.codes import ReasonCode
from stoker_contract.document import MAX_DOCUMENT_BYTES
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Artifact, Golden, Manifest
from stoker_trust import durable
from stoker_trust.errors import TrustError

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a release, checked against the manifest."""

    path: str
    source: Path
    digest: str
    length: int


@dataclass(frozen=True)
class ReleaseFolder:
    """A release whose files are what its manifest says."""

    manifest: Manifest
    manifest_bytes: bytes
    files: tuple[ReleaseFile, ...]

    @property
    def manifest_path(self) -> str:
        """Where the manifest goes in the repository."""
        return f"{self.manifest.release}/{MANIFEST}"


def read_release(folder: Path, *, dev: bool) -> ReleaseFolder:
    """Read and check a release folder.

    The manifest is what gets signed, so this is where it is stamped: ``dev`` marks it as made
    with throw-away keys, unless it says so itself.

    Raises:
        TrustError: a file is missing, or not the one the manifest describes.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        manifest = Manifest.parse(data)
        if dev and not manifest.dev:
            # Only the stamp: what this version does not know stays as the builder wrote it.
            data = json.dumps({**json.loads(data), "dev": True}, sort_keys=True).encode()
            manifest = Manifest.parse(data, max_bytes=MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        hint = "Make a release with: stoker build"
        raise TrustError(ReasonCode.MALFORMED, f"{path} is missing", hint=hint) from None
    except ContractError as error:
        raise TrustError(error.code, f"{path}: {error.detail}") from None
    parts = [part for artifact in manifest.artifacts for part in (artifact, artifact.golden)]
    files: dict[str, ReleaseFile] = {}
    for part in parts:
        file = _checked(folder, manifest, part)
        if files.setdefault(file.path, file) != file:
            detail = f"{path}: {file.path} is named with two digests"
            raise TrustError(ReasonCode.MALFORMED, detail)
    return ReleaseFolder(manifest, data, tuple(files.values()))


def _checked(folder: Path, manifest: Manifest, part: Artifact | Golden) -> ReleaseFile:
    prefix, _, name = part.path.rpartition("/")
    if prefix != manifest.release or name == MANIFEST:
        detail = f"{part.path} does not belong to {manifest.release}: expected {manifest.release}/…"
        raise TrustError(ReasonCode.MALFORMED, detail)
    source = folder / name
    if not source.is_file():
        detail = f"the manifest names {name}, which is missing in {folder}"
        raise TrustError(ReasonCode.MALFORMED, detail)
    digest, length = durable.digest_of(source)
    if (digest, length) != (part.digest, part.length):
        detail = (
            f"{source} is not the file the manifest describes: {length} bytes, sha256 "
            f"{digest[:12]}…, expected {part.length} bytes, {part.digest[:12]}…"
        )
        hint = "The release was changed after it was built; build it again."
        raise TrustError(ReasonCode.DIGEST_MISMATCH, detail, hint=hint)
    return ReleaseFile(part.path, source, digest, length)
