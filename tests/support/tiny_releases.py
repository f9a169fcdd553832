"""Release folders of a model that multiplies by its major version, for whole fleets."""

from pathlib import Path

from support.edge_device import golden_set, make_manifest, tiny_model

MODEL = "tiny"


def write_release(folder: Path, version: str, *, factor: float | None = None) -> Path:
    """Write a release folder. ``factor`` ships another model than the golden set expects."""
    right = float(version.split(".", maxsplit=1)[0])
    artifact, golden = tiny_model(right if factor is None else factor), golden_set(right)
    folder.mkdir(parents=True)
    (folder / "any.onnx").write_bytes(artifact)
    (folder / "any.golden.npz").write_bytes(golden)
    manifest = make_manifest(version, artifact, golden)
    (folder / "manifest.json").write_bytes(manifest.encode())
    return folder
