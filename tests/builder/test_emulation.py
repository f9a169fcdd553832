"""What another instruction set answers, and what the manifest says of it."""

import shutil
from pathlib import Path

import pytest

from stoker_builder.kernels.isa import IsaRunner, host_isa
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.rows import Mark
from stoker_builder.targets import load_target
from support.tiny_build import request_for

TARGET = load_target("x86-64-v3")

pytestmark = pytest.mark.skipif(
    IsaRunner(TARGET.target).unavailable is not None
    or not {"avx512_vnni", "avx_vnni"} & host_isa()
    or shutil.which("qemu-x86_64") is None,
    reason="needs qemu-x86_64 (apt install qemu-user) on a processor with VNNI",
)


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiler")
def test_fp32_is_checked_with_the_kernels_of_the_target(tmp_path: Path, tiny_onnx: Path) -> None:
    """Given time, the golden set is answered under emulation, and the manifest says so."""
    request = request_for(
        tmp_path / "release",
        model=str(tiny_onnx),
        targets=("x86-64-v3",),
        latency_s=0.0,
        emulation_budget_s=4.0,
    )
    result = build(request, Silence())

    (artifact,) = result.manifest.artifacts
    assert artifact.precision == "fp32"
    assert artifact.accuracy is not None
    assert artifact.accuracy.certified_on.startswith("qemu-x86_64 Haswell on ")
    int8 = next(row for row in result.rows if row.name == "int8-mixed")
    assert int8.mark in {Mark.PASS, Mark.NOT_FUSED}
    assert not int8.shipped
