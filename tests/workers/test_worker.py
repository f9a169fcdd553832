"""One worker and a service, without a broker: what it makes of a job, and what it survives."""

import sys
from pathlib import Path

from stoker_builder.errors import BuildCode
from stoker_builder.workers.documents import JobView
from stoker_builder.workers.states import JobState
from stoker_builder.workers.worker import Worker
from support import stand_in_compiler
from support.build_jobs import job, keep, worker
from support.build_service import Service
from support.small_disk import mounted_small_disk

COMPILER = (sys.executable, stand_in_compiler.__file__)


def done(service: Service, graph: bytes, scratch: Path | None = None) -> JobView:
    """What becomes of a job in the hands of a worker."""
    keep(service.store, graph)
    waiting = service.store.submit(job(graph))
    Worker(service.client(), worker(), scratch, compiler=COMPILER).work(waiting.id)
    return service.store.view(waiting.id)


def test_a_damaged_timing_cache_fails_no_build(service: Service) -> None:
    """It only saves time: the build goes on without."""
    first = done(service, b"compile one")
    assert first.outcome is not None
    assert first.outcome.timing_cache is not None
    path = service.store.blobs.path(first.outcome.timing_cache.digest)
    assert path is not None
    path.write_bytes(b"decay;")

    second = done(service, b"compile two")

    assert (second.state, second.attempts) == (JobState.DONE, 1)
    assert second.outcome is not None
    assert second.outcome.timing_cache == first.outcome.timing_cache, "it began anew"


def test_a_worker_whose_disk_is_full_says_so(service: Service, tmp_path: Path) -> None:
    """The job is not blamed, and nobody waits for the end of a lease."""
    with mounted_small_disk(tmp_path / "disk", size_mib=4) as disk:
        disk.fill()
        view = done(service, b"compile " + bytes(2**16), disk.path)
        assert not [*disk.path.glob("stoker-job-*")]

    assert (view.state, view.attempts) == (JobState.FAILED, 1)
    assert view.outcome is not None
    assert view.outcome.code == BuildCode.EXHAUSTED
    assert "No space left" in view.outcome.detail


def test_a_result_is_known_by_the_software_that_made_it(service: Service) -> None:
    """Not by what the worker had when it was started: another power mode is another result."""
    quiet, fast = (worker("orin-1", power_mode=mode) for mode in ("15W", "MAXN"))
    keep(service.store, b"compile me")
    waiting = service.store.submit(job(b"compile me"))
    started = Worker(service.client(), quiet, compiler=COMPILER, look=lambda: fast.software)

    started.work(waiting.id)

    view = service.store.view(waiting.id)
    assert view.outcome is not None
    assert view.outcome.worker == fast
    service.store.hear(quiet)
    assert service.store.submit(job(b"compile me")).state is JobState.WAITING
