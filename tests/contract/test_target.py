"""Whether an artifact runs on a device, and why not."""

import pytest

from stoker_contract.target import (
    Arch,
    ArtifactKind,
    Profile,
    Runtime,
    Target,
    why_incompatible,
)

VNNI = Target(name="x86-64-vnni", arch=Arch.X86_64, isa=("avx2", "avx512_vnni|avx_vnni"))
ORIN = Target(name="orin-jp6", arch=Arch.AARCH64, gpu_sm="8.7", tensorrt="10.3.0")


def laptop(**changes: object) -> Profile:
    return Profile(
        arch=Arch.X86_64, isa=("avx2", "avx_vnni"), runtimes={"onnxruntime": "1.22"}
    ).model_copy(update=changes)


def test_an_artifact_runs_where_all_it_needs_is_there() -> None:
    """One of two alternatives is enough."""
    assert why_incompatible(VNNI, ArtifactKind.ONNX, laptop()) is None
    assert why_incompatible(VNNI, ArtifactKind.ONNX, laptop(isa=("avx2", "avx512_vnni"))) is None


@pytest.mark.parametrize(
    ("target", "kind", "profile", "named"),
    [
        (VNNI, ArtifactKind.ONNX, laptop(isa=("avx2",)), "avx512_vnni|avx_vnni"),
        (VNNI, ArtifactKind.ONNX, laptop(arch=Arch.AARCH64), "aarch64"),
        (VNNI, ArtifactKind.ONNX, laptop(runtimes={}), "onnxruntime"),
        (VNNI, ArtifactKind.OPENVINO_IR, laptop(), "openvino"),
        (ORIN, ArtifactKind.TENSORRT_PLAN, laptop(), "aarch64"),
        (ORIN, ArtifactKind.TENSORRT_PLAN, laptop(arch=Arch.AARCH64), "gpu_sm 8.7"),
        (
            ORIN,
            ArtifactKind.TENSORRT_PLAN,
            laptop(arch=Arch.AARCH64, gpu_sm="8.7", tensorrt="8.6.2"),
            "tensorrt 10.3.0, this device has 8.6.2",
        ),
    ],
)
def test_a_refusal_names_what_is_missing(
    target: Target, kind: ArtifactKind, profile: Profile, named: str
) -> None:
    """The reason says what is needed and what there is."""
    reason = why_incompatible(target, kind, profile)
    assert reason is not None
    assert named in reason


def test_an_artifact_may_name_another_runtime_than_the_usual() -> None:
    """ONNX for OpenVINO needs OpenVINO, and a runtime that can not read ONNX is refused."""
    both = laptop(runtimes={"onnxruntime": "1.22", "openvino": "2026.4"})
    assert why_incompatible(VNNI, ArtifactKind.ONNX, both, Runtime.OPENVINO) is None
    missing = why_incompatible(VNNI, ArtifactKind.ONNX, laptop(), Runtime.OPENVINO)
    assert "openvino" in str(missing)
    wrong = why_incompatible(VNNI, ArtifactKind.ONNX, both, Runtime.TENSORRT)
    assert "does not run" in str(wrong)
