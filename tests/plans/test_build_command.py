"""``stoker build --targets rtx-…`` as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from stoker_contract.manifest import Manifest
from stoker_contract.target import ArtifactKind
from support.tiny_build import MODELS

pytestmark = pytest.mark.rtx

FAST = [
    *("--model", f"{MODELS}:factory", "--data", f"{MODELS}:dataset", "--name", "tiny"),
    *("--version", "1.0.0", "--counter", "1", "--latency-s", "0", "--quick", "--precision", "fp32"),
]


def stoker_build(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "stoker_cli.main", "build", *FAST, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_a_release_for_a_gpu_has_a_plan_and_what_runs_without_one(tmp_path: Path) -> None:
    """Its fallback may use the GPU too, through ONNX Runtime, and ends on the processor."""
    output = tmp_path / "release"

    ended = stoker_build("--targets", "rtx-sm89", "--accelerators", "cuda", "--output", output)

    assert ended.returncode == 0, ended.stderr
    assert "rtx-sm89: fp32-tensorrt-rtx" in ended.stdout
    manifest = Manifest.parse((output / "manifest.json").read_bytes())
    plan, portable = manifest.artifacts
    assert plan.kind is ArtifactKind.TENSORRT_PLAN
    assert plan.fallback == (portable.digest,)
    assert plan.session.accelerators == ()
    assert portable.session.accelerators == ("cuda",)
    assert portable.golden.tolerance >= plan.golden.tolerance


def test_a_range_of_shapes_that_is_none_is_refused(tmp_path: Path) -> None:
    """With how one is written."""
    for shapes in ("x=1,3/2,3", "x=4,3/2,3/8,3", "1,3/2,3/4,3", "x=a/b/c"):
        ended = stoker_build("--plan-shape", shapes, "--output", tmp_path / "release")

        assert ended.returncode == 1
        assert f"--plan-shape is {shapes!r}" in ended.stderr


def test_what_no_onnx_runtime_has_is_refused(tmp_path: Path) -> None:
    """With what there is."""
    ended = stoker_build("--accelerators", "cuda,dla", "--output", tmp_path / "release")

    assert ended.returncode == 1
    assert "--accelerators has 'dla'" in ended.stderr
    assert "tensorrt, cuda" in ended.stderr
