"""Finding out what was named, and describing it as one JSON object."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.inspection.onnx_facts import FileFacts, onnx_facts
from stoker_builder.release import MANIFEST, read_manifest
from stoker_contract.manifest import Artifact, Manifest

_FOR_COMPARING: Final = {"nodes", "weights"}


@dataclass(frozen=True, slots=True)
class Inspected:
    """What was looked at.

    Attributes:
        path: as it was named.
        manifest: if it is a release.
        files: the ONNX files, by name.
        missing: files that the manifest promises and the folder does not have.
    """

    path: Path
    manifest: Manifest | None
    files: dict[str, FileFacts]
    missing: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return "file" if self.manifest is None else "release"

    def to_object(self) -> dict[str, Any]:
        """As JSON, without what is only good for comparing."""
        files = {name: _brief(facts) for name, facts in self.files.items()}
        told: dict[str, Any] = {"kind": self.kind, "files": files}
        if self.manifest is not None:
            told["manifest"] = self.manifest.to_object()
            told["missing"] = list(self.missing)
        return told


def look_at(path: Path) -> Inspected:
    """Look at a release folder, a manifest or an ONNX file.

    Raises:
        BuildError: ``MODEL_MISSING``, ``MODEL_FORMAT``, ``EXTERNAL_DATA`` or
            ``UNSUPPORTED_OP``.
    """
    if path.suffix == ".onnx":
        return Inspected(path, None, {path.name: onnx_facts(path)})
    if path.is_dir() or path.suffix == ".json":
        return _release(path)
    detail = f"{path} is no release folder, no manifest and no ONNX file"
    code = BuildCode.MODEL_FORMAT if path.exists() else BuildCode.MODEL_MISSING
    raise BuildError(code, detail, "give one of these")


def _release(path: Path) -> Inspected:
    manifest = read_manifest(path)
    folder = path if path.is_dir() else path.parent
    names = dict.fromkeys(name_of(artifact) for artifact in manifest.artifacts)
    goldens = [artifact.golden.path.rpartition("/")[2] for artifact in manifest.artifacts]
    # a manifest alone promises files that nobody has to have
    alone = not path.is_dir() and path.name != MANIFEST
    missing = () if alone else tuple(n for n in (*names, *goldens) if not (folder / n).is_file())
    files = {
        name: onnx_facts(folder / name)
        for name in names
        if name.endswith(".onnx") and (folder / name).is_file()
    }
    return Inspected(path, manifest, files, missing)


def name_of(artifact: Artifact) -> str:
    """The file of an artifact, in the release folder."""
    return artifact.path.rpartition("/")[2]


def _brief(facts: FileFacts) -> dict[str, Any]:
    told = facts.to_object()
    return {key: value for key, value in told.items() if key not in _FOR_COMPARING}
