"""Workers of two classes on two Pythons: JetPack 6 has its TensorRT for 3.10 only."""

import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from stoker_builder.tensorrt.compiler import compile_plan
from stoker_builder.tensorrt.graphs import half, parsable
from stoker_builder.tensorrt.settings import Validity
from stoker_builder.tensorrt.targets import plan_targets
from stoker_builder.workers.documents import JobView
from stoker_builder.workers.states import JobState
from support.build_jobs import job
from support.build_site import Site, running_site
from support.environments import plan_builder, python_3_10
from support.small_cnn import small_cnn

pytestmark = [pytest.mark.rtx, pytest.mark.slow, pytest.mark.timeout(600)]

OLD, NEW = "rtx-sm89", "rtx-sm86"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One worker with each Python, each for a class of its own."""
    python = python_3_10()
    if python is None:
        pytest.skip("there is no Python 3.10 with the venv module on this machine")
    oldest = plan_builder(python)
    with running_site(tmp_path_factory.mktemp("site")) as running:
        running.start("old", OLD, python=str(oldest), stand_in=False)
        running.start("new", NEW, stand_in=False)
        running.await_workers("old", "new")
        yield running


def test_each_python_builds_for_its_class(site: Site, tmp_path: Path) -> None:
    """With the real compiler; the bytes that come back are those that are compiled here."""
    model = tmp_path / "model.onnx"
    onnx.save(half(parsable(small_cnn())), model)

    asked = {name: submit(site, model, name) for name in (OLD, NEW)}
    ended = {name: site.ended(view, 60.0) for name, view in asked.items()}

    for name, worker, version in ((OLD, "old", (3, 10)), (NEW, "new", sys.version_info[:2])):
        view = ended[name]
        assert (view.state, view.worker) == (JobState.DONE, worker)
        assert view.outcome is not None
        assert view.outcome.worker is not None
        assert view.outcome.plan is not None
        assert view.outcome.evidence is not None
        told = tuple(int(part) for part in view.outcome.worker.python.split(".")[:2])
        assert told == version
        assert view.outcome.evidence.gpu_sms == (name.removeprefix("rtx-sm"),)
        assert view.outcome.evidence.validity in {Validity.NO_GPU, Validity.NOT_HERE}
        here = compile_plan(model, tmp_path / f"{name}.plan", plan_targets()[name].settings)
        site.service.client().get(view.outcome.plan, tmp_path / f"{name}.there")
        assert (tmp_path / f"{name}.there").read_bytes() == here.path.read_bytes()


def submit(site: Site, model: Path, name: str) -> JobView:
    target = plan_targets()[name]
    wanted = {"settings": target.settings, "target": target.target}
    return site.submit_job(model.read_bytes(), job(model.read_bytes(), name, **wanted))
