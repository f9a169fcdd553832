"""Whether an artifact runs on a device, and why not."""

import pytest

from stoker_contract.target import (
    Arch,
    ArtifactKind,
    Profile,
    Runtime,
    Target,
    is_version,
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


@pytest.mark.parametrize(
    ("needed", "present", "fits"),
    [
        ("36.4", "36.4.3", True),
        ("10.3.0.26", "10.3.0", True),
        ("10.3", "10.30.1", False),
        ("12.6", "12.2", False),
        ("12.6", "none", False),
    ],
)
def test_versions_are_as_exact_as_they_are_written(
    needed: str, present: str, *, fits: bool
) -> None:
    """A target that says 36.4 does not care about the revision, and 10.3 is not 10.30."""
    assert is_version(needed, present) is fits


def test_the_version_of_an_rtx_target_is_that_of_its_own_runtime() -> None:
    """TensorRT and TensorRT-RTX count their versions apart, and one device may have both."""
    target = Target(name="rtx-sm89", arch=Arch.X86_64, gpu_sm="89", tensorrt="1.7.1")
    profile = laptop(
        gpu_sm="89", tensorrt="10.3.0", runtimes={"tensorrt": "10.3.0", "tensorrt-rtx": "1.7.1.116"}
    )
    kind = ArtifactKind.TENSORRT_PLAN

    assert why_incompatible(target, kind, profile, Runtime.TENSORRT_RTX) is None
    assert "10.3.0" in (why_incompatible(target, kind, profile, Runtime.TENSORRT) or "")
