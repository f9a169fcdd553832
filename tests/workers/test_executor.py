"""Having plans made elsewhere, seen from a build: what it waits for, and what it believes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import write_frame
from stoker_builder.progress import Silence
from stoker_builder.tensorrt.settings import Validity
from stoker_builder.tensorrt.targets import plan_targets
from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.documents import Evidence, JobOutcome
from stoker_builder.workers.executor import (
    BuildExecutor,
    Built,
    InProcess,
    PlanWork,
    Remote,
    withdrawn_unless_done,
)
from stoker_builder.workers.states import JobState
from stoker_builder.workers.waiting import await_built
from support.build_jobs import IO, ONNX, ORIN, blob, worker
from support.build_service import Service
from support.plans import plan

TARGET = plan_targets()[ORIN]


class Notes(Silence):
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def work(tmp_path: Path) -> PlanWork:
    """A graph that a plan is wanted of."""
    (tmp_path / "x.onnx").write_bytes(ONNX)
    return PlanWork(tmp_path / "x.onnx", tmp_path / "x.plan", TARGET)


class AtWork:
    """A worker whose steps a test chooses: each pause of who waits is one step."""

    def __init__(self, service: Service, steps: Iterator[Callable[[], object]]) -> None:
        self.client = service.client()
        self._steps = steps
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        self.now_s += seconds
        next(self._steps, lambda: None)()


def sent(client: ServiceClient, folder: Path, data: bytes) -> None:
    path = folder / f"{blob(data).digest[:8]}.sent"
    path.write_bytes(data)
    client.put(path)


def ends(service: Service, folder: Path, data: bytes, **evidence: object) -> None:
    """A worker takes the one job, and ends it with some bytes as the plan."""
    client = service.client()
    (view,) = client.jobs().jobs
    grant = client.take(view.id, worker())
    assert grant is not None
    sent(client, folder, data)
    told = {"version": "10.3.0.26", "io": IO, "not_run": "no GPU is here", **evidence}
    client.finish(grant, JobOutcome(plan=blob(data), evidence=Evidence.model_validate(told)))


def waited(
    executor: BuildExecutor, ticket: str, at_work: AtWork, notes: Notes, wait_s: float = 60.0
) -> Built:
    return await_built(
        executor, ticket, notes, wait_s=wait_s, clock=at_work.clock, pause=at_work.pause
    )


def test_whoever_waits_sees_for_what(service: Service, work: PlanWork, tmp_path: Path) -> None:
    """No worker of the class, then one that is there, then one that compiles, then the plan."""
    client = service.client()
    executor, notes = Remote(client), Notes()
    ticket = executor.submit(work)
    steps = [
        lambda: None,
        lambda: client.hear(worker()),
        lambda: client.take(ticket, worker()),
        lambda: ends(service, tmp_path, plan(b"x"), validity=Validity.NO_GPU),
    ]

    built = waited(executor, ticket, AtWork(service, iter(steps)), notes)

    assert notes.said == [
        f"waiting for a worker of class {ORIN} (none seen)",
        f"waiting for a worker of class {ORIN} (1 seen lately)",
        f"orin-1 compiles for {ORIN}",
    ]
    assert work.plan.read_bytes() == plan(b"x")
    assert built.compiled.header.version == "10.3.0.26"
    assert built.compiled.validity is Validity.NO_GPU
    assert built.software == worker().software
    assert built.made_on == "orin-1"
    assert built.answers == ()


def test_nobody_waits_for_ever(service: Service, work: PlanWork) -> None:
    """The class that is missing is said, and the job is withdrawn."""
    executor = Remote(service.client())
    ticket = executor.submit(work)
    with pytest.raises(BuildError, match=rf"class {ORIN} \(none seen\), and that for 5 s") as error:
        waited(executor, ticket, AtWork(service, iter(())), Notes(), wait_s=5.0)
    assert error.value.code is BuildCode.NO_WORKER
    assert "stoker worker" in error.value.hint
    assert service.store.view(ticket).state is JobState.CANCELLED


def test_what_a_worker_refuses_comes_back_in_its_words(service: Service, work: PlanWork) -> None:
    """With its name, so that somebody can look there."""
    client = service.client()
    executor = Remote(client)
    ticket = executor.submit(work)
    grant = client.take(ticket, worker())
    assert grant is not None
    client.finish(grant, JobOutcome(code=BuildCode.COMPILE, detail="no kernel", hint="use FP32"))

    with pytest.raises(BuildError, match="orin-1: no kernel") as error:
        waited(executor, ticket, AtWork(service, iter(())), Notes())
    assert (error.value.code, error.value.hint) == (BuildCode.COMPILE, "use FP32")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no plan at all", "at least 64 bytes"),
        (b"x" * 80, "no TensorRT plan"),
        (plan(b"x") + b"more", "cut or changed"),
        (plan(b"x", magic=b"vtrt"), "made by tensorrt-rtx"),
        (plan(b"x", version=(8, 6, 2, 0)), "made by tensorrt 8.6.2.0"),
    ],
)
def test_a_plan_is_looked_at_before_it_is_believed(
    service: Service, work: PlanWork, tmp_path: Path, data: bytes, said: str
) -> None:
    """Whatever a worker says of it."""
    executor = Remote(service.client())
    ticket = executor.submit(work)
    ends(service, tmp_path, data)
    with pytest.raises(BuildError, match=said) as error:
        waited(executor, ticket, AtWork(service, iter(())), Notes())
    assert error.value.code is BuildCode.COMPILE


def test_a_plan_that_changed_on_its_way_is_refused(
    service: Service, work: PlanWork, tmp_path: Path
) -> None:
    """The digest in the outcome is that of the bytes, or there is no plan."""
    executor = Remote(service.client())
    ticket = executor.submit(work)
    ends(service, tmp_path, plan(b"x"))
    kept = service.store.blobs.path(blob(plan(b"x")).digest)
    assert kept is not None
    kept.write_bytes(plan(b"y"))

    with pytest.raises(BuildError) as error:
        waited(executor, ticket, AtWork(service, iter(())), Notes())
    assert error.value.code is BuildCode.BLOB_DAMAGED
    assert not work.plan.exists()


def frames(path: Path, count: int) -> bytes:
    with path.open("wb") as stream:
        for value in range(count):
            write_frame(stream, {"y": np.full((1, 2), value, np.float32)})
    return path.read_bytes()


def test_the_answers_of_the_plan_itself_come_along(
    service: Service, work: PlanWork, tmp_path: Path
) -> None:
    """Where the worker had the GPU, its answers are judged and not those of a stand-in."""
    executor = Remote(service.client())
    ticket = executor.submit(work)
    answers = frames(tmp_path / "frames", 3)
    sent(service.client(), tmp_path, answers)
    ends(service, tmp_path, plan(b"x"), answers=blob(answers), not_run="", runs=3)

    built = waited(executor, ticket, AtWork(service, iter(())), Notes())

    assert [float(answer["y"][0, 0]) for answer in built.answers] == [0.0, 1.0, 2.0]


def test_answers_that_are_none_are_refused(
    service: Service, work: PlanWork, tmp_path: Path
) -> None:
    """They come from another machine."""
    executor = Remote(service.client())
    ticket = executor.submit(work)
    nonsense = b'[["y", "no type", [1]]]\n1234'
    sent(service.client(), tmp_path, nonsense)
    ends(service, tmp_path, plan(b"x"), answers=blob(nonsense), not_run="", runs=1)
    with pytest.raises(BuildError, match="can not be read") as error:
        waited(executor, ticket, AtWork(service, iter(())), Notes())
    assert error.value.code is BuildCode.BUILD_SERVICE


def test_a_build_that_ends_early_withdraws_what_it_asked_for(
    service: Service, work: PlanWork
) -> None:
    """Ctrl-C leaves no board compiling for nobody."""
    executor = Remote(service.client())
    unasked = BuildError(BuildCode.TENSORRT_GRAPH, "never asked for")
    tickets: dict[str, str | BuildError] = {"fp16": executor.submit(work), "fp32": unasked}
    with pytest.raises(KeyboardInterrupt), withdrawn_unless_done(executor, tickets):
        raise KeyboardInterrupt
    assert [view.state for view in service.store.jobs()] == [JobState.CANCELLED]


def test_a_build_that_ends_early_leaves_others_what_they_wait_for(
    service: Service, work: PlanWork
) -> None:
    """It withdraws once, however often it says so."""
    leaving, staying = Remote(service.client()), Remote(service.client())
    ticket = leaving.submit(work)
    assert staying.submit(work) == ticket

    leaving.withdraw(ticket)
    leaving.withdraw(ticket)

    assert [view.state for view in service.store.jobs()] == [JobState.WAITING]
    staying.withdraw(ticket)
    assert [view.state for view in service.store.jobs()] == [JobState.CANCELLED]


def test_a_board_is_not_built_for_in_this_process(work: PlanWork) -> None:
    """With a hint at who could."""
    with pytest.raises(BuildError, match="nowhere else") as error:
        InProcess().submit(work)
    assert error.value.code is BuildCode.NO_COMPILER
    assert "--builds" in error.value.hint
