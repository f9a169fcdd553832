"""Release folders as the builder leaves them, with bytes that no engine would load."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from stoker_contract.manifest import (
    Artifact,
    DType,
    EngineIO,
    Golden,
    Manifest,
    Precision,
    TensorSpec,
)
from stoker_contract.target import Arch, ArtifactKind, Target

V3 = Target(name="x86-64-v3", arch=Arch.X86_64, isa=("avx2", "fma"))
VNNI = Target(name="x86-64-vnni", arch=Arch.X86_64, isa=("avx2", "avx512_vnni|avx_vnni"))
ARM = Target(name="aarch64", arch=Arch.AARCH64)

_IO = EngineIO(
    inputs=(TensorSpec(name="x", dtype=DType.FP32, shape=(1, 4)),),
    outputs=(TensorSpec(name="y", dtype=DType.FP32, shape=(1, 2)),),
)


def make_release(  # noqa: PLR0913  each one is optional
    folder: Path,
    *,
    model: str = "digits",
    version: str = "1.0.0",
    counter: int = 1,
    targets: Sequence[Target] = (VNNI, V3),
    salt: str = "",
) -> Manifest:
    """Write a release folder and return its manifest. Other ``salt``, other bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    artifacts = tuple(_artifact(folder, f"{model}/{version}", target, salt) for target in targets)
    manifest = Manifest(model=model, version=version, counter=counter, artifacts=artifacts)
    text = json.dumps(manifest.to_object(), indent=2)
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return manifest


def _artifact(folder: Path, release: str, target: Target, salt: str) -> Artifact:
    precision = Precision.INT8 if target is VNNI else Precision.FP32
    name = f"{target.name}-{precision}"
    model = f"{release} {name} {salt}\n".encode() * 1000
    golden = f"golden {release} {name} {salt}\n".encode() * 10
    (folder / f"{name}.onnx").write_bytes(model)
    (folder / f"{name}.golden.npz").write_bytes(golden)
    return Artifact(
        path=f"{release}/{name}.onnx",
        digest=hashlib.sha256(model).hexdigest(),
        length=len(model),
        kind=ArtifactKind.ONNX,
        precision=precision,
        target=target,
        io=_IO,
        golden=Golden(
            path=f"{release}/{name}.golden.npz",
            digest=hashlib.sha256(golden).hexdigest(),
            length=len(golden),
            samples=10,
            tolerance=1e-3,
            min_score=0.9,
        ),
    )
