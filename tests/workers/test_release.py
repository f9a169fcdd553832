"""``stoker build --targets orin-… --builds URL``: a release with the plan of a board in it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.bench import BuildResult
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.request import BuildService
from stoker_builder.rows import Mark
from stoker_contract.plan_header import read_plan_header
from stoker_contract.target import Arch, ArtifactKind, Profile, Runtime, why_incompatible
from support.board_build import board_request
from support.build_jobs import ORIN
from support.build_service import TOKEN
from support.build_site import Site, running_site
from support.nvidia_board import orin_nano

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A worker that believes to be an Orin Nano, with a compiler that stands in."""
    folder = tmp_path_factory.mktemp("site")
    with running_site(folder) as running:
        running.start("nano-1", ORIN, root=orin_nano(folder / "board"))
        (folder / "token").write_text(TOKEN)
        yield running


@pytest.fixture(scope="module")
def built(site: Site) -> BuildResult:
    """A release for that board, and nothing else named."""
    service = BuildService(site.service.url, site.folder / "token", wait_s=60.0)
    request = board_request(site.folder / "release", targets=(ORIN,), builds=service)
    return build(request, Silence())


def test_the_plan_of_a_board_is_in_the_release(built: BuildResult, site: Site) -> None:
    """Compiled elsewhere, with the very bytes that came; the board's words are in the manifest."""
    plan = built.manifest.artifacts[0]
    data = (built.output / plan.path.rpartition("/")[2]).read_bytes()

    assert plan.kind is ArtifactKind.TENSORRT_PLAN
    assert (plan.digest, plan.length) == (plan.digest, len(data))
    assert read_plan_header(data).runtime is Runtime.TENSORRT
    target = plan.target
    assert (target.module, target.l4t, target.cuda) == ("orin-nano-8gb", "36.4.3", "12.6.68")
    assert target.tensorrt == "10.3.0.26"
    assert plan.accuracy is not None
    assert plan.accuracy.certified_on == f"{ORIN}, the plan itself, on nano-1"
    assert plan.accuracy.samples == len(built.split.certification)
    assert {view.worker for view in site.service.store.jobs()} == {"nano-1"}
    with np.load(built.output / plan.golden.path.rpartition("/")[2]) as golden:
        assert golden.files


def test_a_board_that_was_upgraded_takes_the_fallback(built: BuildResult) -> None:
    """Its own architecture has a portable artifact, though nobody named that target."""
    plan, *portable = built.manifest.artifacts
    nano = Profile(
        arch=Arch.AARCH64,
        isa=("asimd",),
        gpu_sm="87",
        module="orin-nano-8gb",
        l4t="36.4.3",
        cuda="12.6.68",
        tensorrt="10.3.0",
        runtimes={"tensorrt": "10.3.0", "onnxruntime": "1.20.0"},
    )
    runtime = plan.session.runtime
    assert why_incompatible(plan.target, plan.kind, nano, runtime) is None
    upgraded = nano.model_copy(update={"l4t": "39.2.0", "tensorrt": "10.16.2"})
    assert why_incompatible(plan.target, plan.kind, upgraded, runtime) is not None
    assert {a.target.arch for a in portable} == {Arch.AARCH64}
    assert plan.fallback
    assert set(plan.fallback) <= {a.digest for a in portable}


def test_what_was_compiled_before_is_not_compiled_again(built: BuildResult, site: Site) -> None:
    """The next version of a release, with the same model: its plans are there at once."""
    service = BuildService(site.service.url, site.folder / "token", wait_s=60.0)
    request = board_request(
        site.folder / "next", targets=(ORIN,), builds=service, version="1.0.1", counter=2
    )
    again = build(request, Silence())

    assert again.manifest.artifacts[0].digest == built.manifest.artifacts[0].digest
    assert [view.from_cache for view in site.service.store.jobs()] == [True] * 3 + [False] * 3


def test_every_candidate_has_its_row(built: BuildResult) -> None:
    """FP16 ships, INT8 is not timed, FP32 comes second; as for a GPU that is not here."""
    marks = {row.name: (row.mark, row.shipped) for row in built.rows if row.target == ORIN}
    assert marks["fp16-tensorrt"] == (Mark.PASS, True)
    assert not marks["int8-explicit-fp16-tensorrt"][1]
    assert not marks["fp32-tensorrt"][1]


def test_a_service_that_is_not_there_ends_a_build_at_once(site: Site, tmp_path: Path) -> None:
    """Before the model is read, and nothing is written."""
    service = BuildService("http://127.0.0.1:9", site.folder / "token")
    with pytest.raises(BuildError) as error:
        build(board_request(tmp_path / "x", targets=(ORIN,), builds=service), Silence())
    assert error.value.code is BuildCode.BUILD_SERVICE
    assert not (tmp_path / "x").exists()
