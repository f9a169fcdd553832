"""Builds on other machines, for real: a broker, a service, workers, and what hurts them."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis

from stoker_builder.errors import BuildCode
from stoker_builder.workers.documents import JobView
from stoker_builder.workers.queues import queue_of
from stoker_builder.workers.states import JobState
from stoker_contract.plan_header import read_plan_header
from support.build_jobs import ORIN, THOR
from support.build_site import Site, running_site
from support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

XAVIER = "xavier-nx-8gb-jp51"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two workers, of different classes."""
    with running_site(tmp_path_factory.mktemp("site")) as running:
        running.start("orin-1", ORIN)
        running.start("thor-1", THOR)
        running.await_workers("orin-1", "thor-1")
        yield running


def body_of(site: Site, view: JobView, folder: Path) -> bytes:
    assert view.outcome is not None
    assert view.outcome.plan is not None
    site.service.client().get(view.outcome.plan, folder / "x.plan")
    data = (folder / "x.plan").read_bytes()
    read_plan_header(data)
    return data[64:]


def test_a_job_goes_to_a_worker_of_its_class(site: Site, tmp_path: Path) -> None:
    """Each builds what is for its kind, and the bytes that arrive are those that were built."""
    asked = [site.submit(f"compile for-{name}", name) for name in (ORIN, THOR)]
    orin, thor = (site.ended(view) for view in asked)

    assert (orin.state, orin.worker) == (JobState.DONE, "orin-1")
    assert (thor.state, thor.worker) == (JobState.DONE, "thor-1")
    assert body_of(site, orin, tmp_path) == f"compile for-{ORIN}".encode()
    assert orin.outcome is not None
    assert orin.outcome.evidence is not None
    assert orin.outcome.evidence.version == "10.3.0.26"
    assert orin.outcome.evidence.not_run == "no GPU is here"


def test_a_class_that_nobody_has_waits_visibly_until_one_comes(site: Site) -> None:
    """The view says that no worker of the class was heard of; then one is started."""
    waiting = site.submit("compile for-xavier", XAVIER)
    time.sleep(0.5)  # several rounds of the dispatcher
    assert redis.Redis.from_url(site.redis.url).llen(queue_of(XAVIER)) == 0
    view = site.view(waiting)
    assert (view.state, view.workers) == (JobState.WAITING, 0)

    site.start("xavier-1", XAVIER)

    assert site.ended(waiting).worker == "xavier-1"


def test_a_worker_that_is_killed_leaves_its_job_to_another(site: Site, tmp_path: Path) -> None:
    """Mid-build, as a power cut would: its compiler dies with it, and the job is finished."""
    doomed = site.start("doomed", "orin-nx-8gb-jp62")
    asked = site.submit(f"sleep-once {tmp_path}", "orin-nx-8gb-jp62")
    wait_until((tmp_path / "slept").exists, 30.0, "the first worker compiles")
    compiler = int((tmp_path / "slept").read_text())
    assert site.view(asked).worker == "doomed"

    doomed.kill()
    site.start("heir", "orin-nx-8gb-jp62")

    done = site.ended(asked)
    assert (done.state, done.worker, done.attempts) == (JobState.DONE, "heir", 2)
    wait_until(lambda: not is_alive(compiler), what="no compiler is left behind")


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_is_told_to_stop_ends_its_job_first(site: Site, tmp_path: Path) -> None:
    """A board that is switched off in order wastes no build."""
    leaving = site.start("leaving", "orin-nx-16gb-jp62")
    asked = site.submit(f"await {tmp_path}", "orin-nx-16gb-jp62")
    wait_until((tmp_path / "here").exists, 30.0, "it compiles")

    leaving.process.terminate()
    (tmp_path / "go").touch()

    wait_until(lambda: leaving.process.poll() is not None, 30.0, "it ends")
    assert leaving.process.returncode == 0
    assert site.view(asked).state is JobState.DONE


def test_a_job_that_ends_whoever_takes_it_is_refused(site: Site) -> None:
    """After its attempts, with a code; the worker itself goes on to the next job."""
    poisoned = site.submit("end-worker", ORIN, max_attempts=2)

    view = site.ended(poisoned)

    assert (view.state, view.attempts) == (JobState.REFUSED, 2)
    assert view.outcome is not None
    assert view.outcome.code == BuildCode.JOB_POISONED
    assert site.ended(site.submit("compile after-the-poison", ORIN)).state is JobState.DONE


def test_what_the_compiler_refuses_is_said_and_not_repeated(site: Site) -> None:
    """One attempt, the compiler's own words, and what to do."""
    view = site.ended(site.submit("refuse no such kernel", ORIN))

    assert (view.state, view.attempts) == (JobState.FAILED, 1)
    assert view.outcome is not None
    assert (view.outcome.code, view.outcome.detail) == (BuildCode.COMPILE, "no such kernel")
    assert view.outcome.hint


@pytest.mark.parametrize(
    ("graph", "limits", "said"),
    [
        ("sleep-once {folder}", {"limit_s": 0.5}, "not done within 0.5 s"),
        ("grow {folder}", {"memory_bytes": 2**28}, "and may have 256"),
    ],
)
def test_a_build_has_hard_limits(
    site: Site, tmp_path: Path, graph: str, limits: dict[str, object], said: str
) -> None:
    """Time and memory; the compiler is killed and the worker is not."""
    view = site.ended(site.submit(graph.format(folder=tmp_path), ORIN, **limits))

    assert view.state is JobState.FAILED
    assert view.outcome is not None
    assert view.outcome.code == BuildCode.EXHAUSTED
    assert said in view.outcome.detail


def test_a_cancelled_build_is_ended_where_it_runs(site: Site, tmp_path: Path) -> None:
    """The worker hears it, kills the compiler, and is free for others."""
    asked = site.submit(f"sleep-once {tmp_path}", ORIN)
    wait_until((tmp_path / "slept").exists, 30.0, "it compiles")
    compiler = int((tmp_path / "slept").read_text())

    site.service.client().cancel(asked.id)

    wait_until(lambda: not is_alive(compiler), what="the compiler is killed")
    assert site.ended(site.submit("compile after-the-end", ORIN)).state is JobState.DONE
    assert site.view(asked).state is JobState.CANCELLED


def test_the_same_question_is_built_once(site: Site) -> None:
    """The second time the answer is there at once; what was timed went along to the next build."""
    site.ended(site.submit("compile before-me", ORIN))
    first = site.ended(site.submit("compile me", ORIN))
    again = site.submit("compile me", ORIN)

    assert (again.state, again.from_cache) == (JobState.DONE, True)
    assert again.outcome == first.outcome
    assert first.outcome is not None
    assert first.outcome.timing_cache is not None
    assert first.outcome.timing_cache.length >= len(b"timed;timed;")


def test_damaged_bytes_are_not_built(site: Site) -> None:
    """What comes off a bad disk has another digest; the worker says so and builds nothing."""
    path = site.folder / "damaged.onnx"
    path.write_bytes(b"compile damaged")
    sent = site.service.client().put(path)
    kept = site.service.store.blobs.path(sent.digest)
    assert kept is not None
    kept.write_bytes(b"compile DAMAGED")

    wanted = site.submit_known(sent, ORIN)

    view = site.ended(wanted)
    assert view.state is JobState.FAILED
    assert view.outcome is not None
    assert view.outcome.code == BuildCode.BLOB_DAMAGED


def test_what_else_is_on_the_broker_does_no_harm(site: Site) -> None:
    """Foreign formats, arguments that are no ids, and jobs that never were."""
    site.say_nonsense(ORIN)

    assert site.ended(site.submit("compile after-nonsense", ORIN)).state is JobState.DONE


def test_a_broker_that_forgets_everything_loses_no_job(site: Site) -> None:
    """It is killed with a job in it and comes back empty; the job is announced again."""
    site.redis.kill()
    asked = [site.submit("compile after-the-broker", name) for name in (ORIN, THOR)]
    assert {site.view(view).state for view in asked} == {JobState.WAITING}
    site.redis.start()

    assert {site.ended(view, 60.0).state for view in asked} == {JobState.DONE}


def says(log: Path, words: bytes, after: int) -> bool:
    return words in log.read_bytes()[after:]


def test_a_broker_that_goes_away_during_builds_leaves_no_worker_deaf(
    site: Site, tmp_path: Path
) -> None:
    """A build is confirmed to nobody; its outcome counts, and the worker takes the next job."""
    log = site.folder / "orin-1.log"
    for number in (1, 2):
        before, folder = log.stat().st_size, tmp_path / f"{number}"
        folder.mkdir()
        asked = site.submit(f"await {folder}", ORIN)
        wait_until((folder / "here").exists, 30.0, "it compiles")
        site.redis.kill()
        (folder / "go").touch()
        assert site.ended(asked).state is JobState.DONE
        wait_until(partial(says, log, b"Couldn't ack", before), 20.0, "it could not confirm")
        site.redis.start()

        assert site.ended(site.submit(f"compile {number}", ORIN), 40.0).state is JobState.DONE
