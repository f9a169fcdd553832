"""``stoker build --targets rtx-…``: a release of plans, made where no such GPU is."""

import re
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.bench import BuildResult
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.rows import Mark, Row
from stoker_builder.tensorrt.releasing import NOT_TIMED
from stoker_builder.tensorrt.targets import plan_targets
from stoker_contract.board import MODULES
from stoker_contract.manifest import Artifact, Precision
from stoker_contract.plan_header import read_plan_header
from stoker_contract.target import Arch, ArtifactKind, Profile, Runtime, why_incompatible
from support.tiny_build import request_for

pytestmark = [pytest.mark.rtx, pytest.mark.slow]

GPUS = ("rtx-sm75", "rtx-sm89")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """One release for two GPUs, and nothing else named."""
    output = tmp_path_factory.mktemp("rtx") / "release"
    cache = output.parent / "cache"
    return build(request_for(output, targets=GPUS, cache=cache), Silence())


def plan_of(built: BuildResult, gpu: str) -> Artifact:
    return next(a for a in built.manifest.artifacts if a.target.name == gpu)


def row(built: BuildResult, gpu: str, name: str) -> Row:
    return next(r for r in built.rows if (r.target, r.name) == (gpu, f"{name}-tensorrt-rtx"))


@pytest.mark.parametrize("gpu", GPUS)
def test_a_plan_is_in_the_release_with_all_that_a_device_asks(built: BuildResult, gpu: str) -> None:
    """Bytes, header, target and golden set; a device with that GPU takes it, another does not."""
    plan = plan_of(built, gpu)
    header = read_plan_header((built.output / plan.path.rpartition("/")[2]).read_bytes())
    device = Profile(
        arch=Arch.X86_64,
        gpu_sm=gpu.removeprefix("rtx-sm"),
        runtimes={"tensorrt-rtx": header.version},
    )

    assert plan.kind is ArtifactKind.TENSORRT_PLAN
    assert header.gpu_sms == (plan.target.gpu_sm,)
    assert header.version == plan.target.tensorrt
    runtime = plan.session.runtime
    assert why_incompatible(plan.target, plan.kind, device, runtime) is None
    older = device.model_copy(update={"runtimes": {"tensorrt-rtx": "1.6.0.1"}})
    assert "tensorrt" in (why_incompatible(plan.target, plan.kind, older, runtime) or "")
    with np.load(built.output / plan.golden.path.rpartition("/")[2]) as golden:
        assert len(golden.files) == len(plan.io.inputs) + len(plan.io.outputs)


def test_what_no_gpu_has_run_is_said_and_ships_in_floating_point_only(built: BuildResult) -> None:
    """FP16 by its graph's answers; INT8 is not timed, so it does not ship."""
    for gpu in GPUS:
        plan = plan_of(built, gpu)
        assert plan.precision is Precision.FP16
        assert plan.latency is None
        assert plan.accuracy is not None
        assert f"no {gpu} was here" in plan.accuracy.certified_on
        assert row(built, gpu, "fp16").mark is Mark.PASS
        quantised = row(built, gpu, "int8-explicit-fp16")
        assert not quantised.shipped
        assert quantised.why == NOT_TIMED
        assert quantised.fusion is not None
        assert (quantised.fusion.basis, quantised.layers) == ("graph", None)
        assert quantised.fusion.quantised_mac_share > 0.9
        assert quantised.path is not None


def test_what_was_timed_is_kept_for_the_next_build(built: BuildResult) -> None:
    """A file for each class of hardware, in the folder that ``--cache`` names."""
    kept = sorted((built.output.parent / "cache" / "timing").iterdir())

    assert [path.name for path in kept] == [f"{gpu}.timing" for gpu in GPUS]
    assert all(path.stat().st_size for path in kept)


def test_a_plan_never_ships_without_something_to_fall_back_to(built: BuildResult) -> None:
    """The portable artifact comes by itself, and devices without the GPU take it."""
    portable = [a for a in built.manifest.artifacts if a.kind is ArtifactKind.ONNX]
    digests = [a.digest for a in portable if a.session.runtime in {None, Runtime.ONNXRUNTIME}]

    assert digests
    assert all(plan_of(built, gpu).fallback == tuple(digests) for gpu in GPUS)
    assert [a.kind for a in built.manifest.artifacts[:2]] == [ArtifactKind.TENSORRT_PLAN] * 2


def test_what_a_gpu_has_not_got_is_a_row_with_the_reason(built: BuildResult) -> None:
    """The table has every candidate, and the compiler's own words."""
    assert (
        "not supported" in row(built, "rtx-sm75", "fp32").why
        or row(built, "rtx-sm75", "fp32").why == "fp16-tensorrt-rtx comes first"
    )
    assert row(built, "rtx-sm89", "fp32").why == "fp16-tensorrt-rtx comes first"


def test_a_board_is_not_compiled_for_elsewhere(tmp_path: Path) -> None:
    """Before anything slow begins, and with what to do."""
    with pytest.raises(BuildError, match="compiled on a orin-nano-8gb") as refused:
        build(request_for(tmp_path / "x", targets=("orin-nano-8gb-jp62",)), Silence())

    assert refused.value.code is BuildCode.NO_COMPILER
    assert "worker" in refused.value.hint


def test_every_target_is_whole() -> None:
    """Each board has what a plan is bound to, and each accelerator is a target of its own."""
    targets = plan_targets()

    for target in targets.values():
        assert target.target.gpu_sm
        if target.runtime is Runtime.TENSORRT:
            assert all((target.target.module, target.target.l4t, target.target.tensorrt))
            assert target.workspace_bytes
        assert (target.dla_core is None) is not target.name.endswith("-dla")
    assert {"rtx-sm120", "orin-nx-16gb-jp62", "orin-nx-16gb-jp62-dla", "thor-t5000-jp72"} <= set(
        targets
    )
    assert "orin-nano-8gb-jp62-dla" not in targets


def test_every_module_that_an_agent_knows_can_be_built_for() -> None:
    """The agent's names of modules are the builder's, and none is missing on either side."""
    modules = {target.target.module for target in plan_targets().values()} - {None}

    assert modules == set(MODULES.values())


def test_a_small_board_gets_a_small_workspace() -> None:
    """A module's memory is shared with everything else: a layer takes a sixteenth of it at most."""
    for target in plan_targets().values():
        memory = re.search(r"-(\d+)gb", target.target.module or "")
        if memory and target.workspace_bytes:
            assert target.workspace_bytes * 16 <= int(memory[1]) * 2**30
