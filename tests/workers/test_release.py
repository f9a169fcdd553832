"""``stoker build --targets orin-… --builds URL``: a release with the plan of a board in it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.bench import BuildResult
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.request import BuildService
from stoker_builder.rows import Mark
from stoker_cli.main import run
from stoker_contract.codes import ReasonCode
from stoker_contract.plan_header import read_plan_header
from stoker_contract.reported import Reported, ReportedSlot
from stoker_contract.target import Arch, ArtifactKind, Profile, Runtime, why_incompatible
from stoker_fleet.store.rebuilds import note_rebuilds
from stoker_fleet.store.schema import Store
from stoker_trust.image_repository import ImageRepository
from stoker_trust.initialise import init_dev
from support.board_build import board_request
from support.build_jobs import ORIN
from support.build_service import TOKEN, Service
from support.build_site import Site, running_site
from support.nvidia_board import orin_nano

NOW = datetime.now(UTC)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


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
    jobs = [view for view in site.service.store.jobs() if view.job.hardware_class == ORIN]
    assert {view.worker for view in jobs} <= {"nano-1", None}
    with np.load(built.output / plan.golden.path.rpartition("/")[2]) as golden:
        assert golden.files


def test_a_plan_that_was_faster_as_a_recording_ships_so(built: BuildResult) -> None:
    """The worker tried both, and nothing else of the release is recorded."""
    plan, *portable = built.manifest.artifacts

    assert plan.session.cuda_graph
    assert not any(artifact.session.cuda_graph for artifact in portable)


def test_the_report_says_where_the_time_of_the_plan_goes(built: BuildResult) -> None:
    """The worker's profiler told it, for FP32 and for what ships."""
    (profile,) = [one for one in built.report.profiles if one.target == ORIN]

    assert profile.before is not None
    assert profile.after is not None
    assert (profile.before.title, profile.after.title) == ("fp32-tensorrt", "fp16-tensorrt")
    assert b"Conv_0 + Relu_1" in (built.output / "report.html").read_bytes()


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
    jobs = [view for view in site.service.store.jobs() if view.job.hardware_class == ORIN]
    assert [view.from_cache for view in jobs] == [True] * 3 + [False] * 3


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


def upgraded(release: str) -> Reported:
    """A device with JetPack 7.2 that finds a plan of JetPack 6 in its slot."""
    slot = ReportedSlot(
        release=release,
        committed_release=release,
        ready=True,
        degraded=True,
        reason=ReasonCode.PLAN_MISMATCH,
        detail="made by 10.3.0",
    )
    profile = Profile(
        arch=Arch.AARCH64,
        module="orin-nano-8gb",
        gpu_sm="87",
        tensorrt="10.16.2",
        l4t="39.2.0",
        cuda="13.2",
    )
    return Reported.model_validate(
        {
            "device": "edge-1",
            "fleet": "demo",
            "epoch": 1,
            "seq": 1,
            "observed_generation": 1,
            "profile": profile,
            "time": NOW.isoformat(),
            "slots": {"main": slot},
        }
    )


@pytest.fixture
def fleet(built: BuildResult, tmp_path: Path) -> Path:
    """The configuration of a fleet that has the release, and one upgraded device."""
    keyring, _ = init_dev(tmp_path / "keys", tmp_path / "repository", NOW)
    ImageRepository(tmp_path / "repository", keyring).publish(built.output, NOW)
    text = 'fleet = "demo"\ndatabase = "fleet.db"\nkeys = "keys"\nrepository = "repository"\n'
    (tmp_path / "fleet.toml").write_text(text)
    store = Store(tmp_path / "fleet.db")
    with store.transaction() as session:
        note_rebuilds(session, upgraded(built.manifest.release), NOW)
    store.close()
    return tmp_path / "fleet.toml"


def test_what_an_upgraded_device_asks_for_becomes_a_job(
    fleet: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same graph for its new JetPack, once; it waits for a board that was upgraded, too."""
    options = ["--builds", site.service.url, "--token-file", str(site.folder / "token")]
    command = ["builds", "rebuild", "--config", str(fleet), *options]
    assert run([*command, "--json"]) == 0
    assert run(command) == 0

    lines = capsys.readouterr().out.splitlines()
    again = "\n".join(lines)
    (asked,) = next(json.loads(line) for line in lines if line.startswith("[{"))
    job = asked["job"]
    assert asked["wanted"]["devices"] == ["edge-1"]
    assert job["job"]["hardware_class"] == "orin-nano-8gb-jp72"
    assert job["job"]["target"]["tensorrt"] == "10.16.2"
    before = [view for view in site.service.store.jobs() if view.job.hardware_class == ORIN]
    assert job["job"]["onnx"]["digest"] in {view.job.onnx.digest for view in before}
    assert f"{job['id']}  waiting  orin-nano-8gb-jp72" in again
    assert "(none seen)" in again


def test_a_wish_that_can_not_be_a_job_is_said(
    fleet: Path, site: Site, service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another service never compiled that plan: the release has to be built again."""
    token = str(site.folder / "token")
    command = ["builds", "rebuild", "--config", str(fleet), "--token-file", token]
    assert run([*command, "--builds", service.url]) == 0
    out = capsys.readouterr().out
    assert "1 waiting" in out
    assert "was not compiled by this service; build the release again" in out
