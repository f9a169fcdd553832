"""The life of a job in the store: who may do what to it, and what is kept."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.documents import Grant, JobOutcome
from stoker_builder.workers.states import (
    FINAL,
    TRANSITIONS,
    JobEvent,
    JobState,
    UnexpectedEventError,
    after,
)
from stoker_builder.workers.store import SEEN_LATELY_S, JobStore
from support.build_jobs import ONNX, ORIN, PLAN, THOR, blob, job, keep, success, worker

LEASE_S = 10.0
WAKE_AGAIN_S = 30.0


class Clock:
    """Seconds that pass when a test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(folder: Path, clock: Clock) -> JobStore:
    return JobStore(folder, clock, lease_s=LEASE_S, wake_again_s=WAKE_AGAIN_S)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    """A store that has the graph and the plan."""
    store = opened(tmp_path, clock)
    keep(store, ONNX)
    keep(store, PLAN)
    yield store
    store.close()


def taken(store: JobStore, job_id: str, name: str = "orin-1") -> Grant:
    grant = store.take(job_id, worker(name))
    assert grant is not None
    return grant


def refused(error: pytest.ExceptionInfo[BuildError], code: BuildCode) -> None:
    assert error.value.code is code
    assert error.value.hint


@pytest.mark.parametrize(("state", "event"), [*itertools.product(JobState, JobEvent)])
def test_what_is_not_in_the_table_does_not_happen(state: JobState, event: JobEvent) -> None:
    """Each pair leads to its state or raises; what has ended stays as it is."""
    if (state, event) in TRANSITIONS:
        assert state not in FINAL
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(UnexpectedEventError):
            after(state, event)
    assert {"done", "failed", "refused", "cancelled"} == FINAL


def test_a_job_is_taken_built_and_answered(store: JobStore) -> None:
    """The usual life of a job."""
    waiting = store.submit(job())
    grant = taken(store, waiting.id)
    view = store.finish(grant.id, grant.number, success())

    assert waiting.state is JobState.WAITING
    assert grant.job == job()
    assert (view.state, view.worker, view.attempts) == (JobState.DONE, "orin-1", 1)
    assert view.outcome is not None
    assert view.outcome.plan == blob(PLAN)
    assert view.outcome.worker == worker("orin-1")


def test_a_job_needs_its_bytes_first(store: JobStore) -> None:
    """A worker is never sent for bytes that nobody has."""
    with pytest.raises(BuildError) as error:
        store.submit(job(b"never sent"))
    refused(error, BuildCode.BLOB_DAMAGED)
    assert not store.jobs()


def test_an_outcome_needs_its_bytes_first(store: JobStore) -> None:
    """A plan that is named and was not sent certifies nothing."""
    grant = taken(store, store.submit(job()).id)
    with pytest.raises(BuildError) as error:
        store.finish(grant.id, grant.number, success(b"never sent"))
    refused(error, BuildCode.BLOB_DAMAGED)
    assert store.view(grant.id).state is JobState.TAKEN


def test_bytes_with_another_digest_are_not_kept(store: JobStore) -> None:
    """Whatever the sender promises, a name in the store is the hash of its bytes."""
    for sent in (b"x plan", b"a plan and more", b"a"):
        with pytest.raises(BuildError) as error:
            store.blobs.put(blob(b"A PLAN"), [sent])
        refused(error, BuildCode.BLOB_DAMAGED)
    assert store.blobs.path(blob(b"A PLAN").digest) is None


def test_a_worker_of_another_class_gets_nothing(store: JobStore) -> None:
    """Whatever queue it listens to, the store gives a job to its class only."""
    waiting = store.submit(job(hardware_class=THOR))
    with pytest.raises(BuildError) as error:
        store.take(waiting.id, worker())
    refused(error, BuildCode.JOB_STATE)
    assert store.view(waiting.id).state is JobState.WAITING


def test_a_class_that_nobody_has_waits_visibly(store: JobStore, clock: Clock) -> None:
    """The view says how many workers of the class were heard of lately."""
    waiting = store.submit(job(hardware_class=THOR))
    store.hear(worker("orin-1"))
    assert store.view(waiting.id).workers == 0

    store.hear(worker("thor-1", THOR))
    assert store.view(waiting.id).workers == 1

    clock.now_s += 3600
    assert store.view(waiting.id).workers == 0


def test_a_job_in_good_hands_is_given_to_nobody_else(store: JobStore) -> None:
    """A message that the broker repeats wakes a second worker, which gets nothing."""
    grant = taken(store, store.submit(job()).id)
    with pytest.raises(BuildError) as error:
        store.take(grant.id, worker("orin-2"))
    refused(error, BuildCode.JOB_STATE)
    store.renew(grant.id, grant.number)


def test_a_job_whose_worker_is_silent_goes_to_another(store: JobStore, clock: Clock) -> None:
    """After the lease; whoever comes back too late is told so, and changes nothing."""
    first = taken(store, store.submit(job()).id)
    clock.now_s += LEASE_S - 1
    store.renew(first.id, first.number)
    clock.now_s += LEASE_S - 1
    assert store.sweep() == ()

    clock.now_s += 2
    assert [wake.job for wake in store.sweep()] == [first.id]
    second = taken(store, first.id, "orin-2")

    with pytest.raises(BuildError) as error:
        store.renew(first.id, first.number)
    refused(error, BuildCode.JOB_STATE)
    with pytest.raises(BuildError):
        store.finish(first.id, first.number, success())
    assert store.finish(second.id, second.number, success()).worker == "orin-2"


def test_a_worker_that_asks_again_has_lost_its_attempt(store: JobStore) -> None:
    """Its build process was killed, and the broker gave it the message again: no lease to wait."""
    first = taken(store, store.submit(job()).id)
    second = taken(store, first.id)
    assert (first.number, second.number) == (1, 2)


def test_a_job_that_ends_its_workers_is_refused(store: JobStore, clock: Clock) -> None:
    """After its last attempt nobody is sent to it again, and everybody is told why."""
    waiting = store.submit(job(max_attempts=2))
    for name in ("orin-1", "orin-2"):
        taken(store, waiting.id, name)
        clock.now_s += LEASE_S + 1
        store.sweep()

    view = store.view(waiting.id)
    assert view.state is JobState.REFUSED
    assert view.outcome is not None
    assert view.outcome.code == BuildCode.JOB_POISONED
    assert "2 workers took it" in view.outcome.detail
    assert store.sweep() == ()
    with pytest.raises(BuildError):
        store.take(waiting.id, worker("orin-3"))


def test_a_job_that_ends_one_worker_again_and_again_is_refused_too(store: JobStore) -> None:
    """The broker gives the message back at once; the attempts are counted in the store."""
    waiting = store.submit(job(max_attempts=2))
    taken(store, waiting.id)
    taken(store, waiting.id)
    assert store.take(waiting.id, worker()) is None
    assert store.view(waiting.id).state is JobState.REFUSED


def test_what_can_not_be_built_is_not_tried_again(store: JobStore) -> None:
    """A compiler's refusal is an answer, and it is kept for nobody else."""
    grant = taken(store, store.submit(job()).id)
    outcome = JobOutcome(code=BuildCode.COMPILE, detail="no kernel", hint="use FP32")
    assert store.finish(grant.id, grant.number, outcome).state is JobState.FAILED
    assert store.submit(job()).state is JobState.WAITING


def test_an_outcome_without_evidence_is_no_success(store: JobStore) -> None:
    """A plan that nobody vouches for does not count as one."""
    grant = taken(store, store.submit(job()).id)
    outcome = JobOutcome(plan=blob(PLAN))
    assert store.finish(grant.id, grant.number, outcome).state is JobState.FAILED


def test_the_same_question_is_one_job(store: JobStore) -> None:
    """While it is open; limits make no other plan, the target does."""
    first = store.submit(job())
    assert store.submit(job(limit_s=5.0, max_attempts=1)).id == first.id
    assert store.submit(job(hardware_class=THOR)).id != first.id


def test_what_was_built_once_is_answered_without_a_worker(store: JobStore) -> None:
    """The answer is there when the question comes."""
    grant = taken(store, store.submit(job()).id)
    built = store.finish(grant.id, grant.number, success())

    again = store.submit(job())

    assert again.id != built.id
    assert (again.state, again.from_cache, again.attempts) == (JobState.DONE, True, 0)
    assert again.outcome == built.outcome


def test_an_upgraded_worker_does_not_answer_with_its_old_plans(store: JobStore) -> None:
    """TensorRT's exact version is part of what an answer is known by."""
    grant = taken(store, store.submit(job()).id)
    store.finish(grant.id, grant.number, success())
    store.hear(worker("orin-1", tensorrt="10.3.1"))

    again = store.submit(job())
    assert again.state is JobState.WAITING
    assert store.take(again.id, worker("orin-1", tensorrt="10.3.1")) is not None


def test_of_equal_boards_the_first_certified_plan_is_everybodys(store: JobStore) -> None:
    """Each board would tune differently; the second asks, and hears that there is nothing to do."""
    grant = taken(store, store.submit(job()).id)
    built = store.finish(grant.id, grant.number, success())
    store.hear(worker("orin-1", tensorrt="10.3.1"))
    again = store.submit(job())
    assert again.state is JobState.WAITING

    assert store.take(again.id, worker("orin-2")) is None
    view = store.view(again.id)
    assert (view.state, view.from_cache, view.outcome) == (JobState.DONE, True, built.outcome)


def test_a_cancelled_job_is_taken_from_its_worker(store: JobStore) -> None:
    """The worker hears it with its next word; cancelling what has ended changes nothing."""
    grant = taken(store, store.submit(job()).id)
    assert store.cancel(grant.id).state is JobState.CANCELLED
    with pytest.raises(BuildError):
        store.renew(grant.id, grant.number)

    other = taken(store, store.submit(job()).id)
    store.finish(other.id, other.number, success())
    assert store.cancel(other.id).state is JobState.DONE


def test_a_job_goes_on_as_long_as_somebody_waits_for_it(store: JobStore) -> None:
    """Two builds that ask the same share a job; one that is stopped leaves it to the other."""
    first = store.submit(job())
    assert store.submit(job()).id == first.id
    grant = taken(store, first.id)

    assert store.withdraw(first.id).state is JobState.TAKEN
    store.renew(grant.id, grant.number)
    assert store.withdraw(first.id).state is JobState.CANCELLED


def test_the_timing_cache_goes_on_from_build_to_build(store: JobStore) -> None:
    """Of the same class and software; another TensorRT begins anew."""
    cache = keep(store, b"what was timed")
    keep(store, b"another graph")
    first = taken(store, store.submit(job()).id)
    assert first.timing_cache is None
    store.finish(first.id, first.number, success(timing_cache=cache))

    second = store.submit(job(b"another graph"))
    assert taken(store, second.id, "orin-2").timing_cache == cache

    store.cancel(second.id)
    third = store.submit(job(b"another graph"))
    upgraded = store.take(third.id, worker("orin-2", tensorrt="10.3.1"))
    assert upgraded is not None
    assert upgraded.timing_cache is None


def test_workers_are_woken_until_one_comes(store: JobStore, clock: Clock) -> None:
    """The broker may have lost the message; it is sent again, and not all the time."""
    store.hear(worker("orin-1"))
    waiting = store.submit(job())
    (wake,) = store.sweep()
    assert wake == (ORIN, waiting.id)
    store.woken(waiting.id)
    assert store.sweep() == ()

    clock.now_s += WAKE_AGAIN_S
    assert store.sweep() == (wake,)
    taken(store, waiting.id)
    assert store.sweep() == ()


def test_nobody_is_woken_who_is_not_there(store: JobStore, clock: Clock) -> None:
    """A job for a class without a worker fills no broker; the class is told when it has one."""
    waiting = store.submit(job())
    store.hear(worker("thor-1", THOR))
    assert store.sweep() == ()

    store.hear(worker("orin-1"))
    assert [wake.job for wake in store.sweep()] == [waiting.id]
    clock.now_s += SEEN_LATELY_S + 1
    assert store.sweep() == ()


def test_all_of_it_outlives_the_service(store: JobStore, tmp_path: Path, clock: Clock) -> None:
    """A restart loses no job and takes none from its worker, though the clock begins anew."""
    waiting = store.submit(job())
    store.woken(waiting.id)
    keep(store, b"another graph")
    grant = taken(store, store.submit(job(b"another graph")).id)
    store.close()
    clock.now_s = 1.0

    again = opened(tmp_path, clock)

    assert [view.worker.name for view in again.workers()] == ["orin-1"]
    assert again.view(waiting.id).workers == 0
    again.hear(worker("orin-1"))
    assert [wake.job for wake in again.sweep()] == [waiting.id]
    again.renew(grant.id, grant.number)
    again.finish(grant.id, grant.number, success())
    assert [view.state for view in again.jobs()] == [JobState.DONE, JobState.WAITING]
    again.close()
