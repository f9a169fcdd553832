"""A worker from the moment that it hears of a job: take it, do it, say how it went."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import structlog

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.compiler import COMPILER
from stoker_builder.workers.building import Bench, build
from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.documents import (
    Blob,
    Grant,
    JobOutcome,
    Software,
    WorkerDescription,
)
from stoker_builder.workers.lease import Lease
from stoker_builder.workers.limited import NotWantedError
from stoker_builder.workers.proving import PROVER

# a service that is started anew grants all leases anew: what was built is not lost with it
PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

_Heard = TypeVar("_Heard")

log: Final = structlog.get_logger("stoker.worker")


@dataclass(frozen=True, slots=True)
class Worker:
    """One machine that builds.

    Attributes:
        client: the service that has the jobs.
        scratch: where the folders of jobs are made; None for the system's place.
        compiler: the compiling program.
        prover: the program that runs what was compiled.
        look: says what the machine's software is now; None for what the description has.
    """

    client: ServiceClient
    description: WorkerDescription
    scratch: Path | None = None
    compiler: Sequence[str] = COMPILER
    prover: Sequence[str] = PROVER
    look: Callable[[], Software] | None = None

    def work(self, job_id: str) -> None:
        """Do a job, if it is still to be done.

        Raises:
            BuildError: ``BUILD_SERVICE``: nobody could be told. The job goes to somebody else when
                its lease ends.
        """
        now = self._now()
        try:
            grant = self.client.take(job_id, now.description)
        except BuildError as error:
            if error.code is not BuildCode.JOB_STATE:
                raise
            log.info("worker.left_alone", job=job_id, detail=error.detail)
            return
        if grant is None:
            log.info("worker.nothing_to_build", job=job_id)
            return
        log.info("worker.took", job=job_id, attempt=grant.number)
        with Lease(self.client, grant) as lease:
            now._do(grant, lease)  # noqa: SLF001  it is the same worker

    def _now(self) -> "Worker":
        """This worker after an upgrade or in another power mode: a result is known by both."""
        if self.look is None:
            return self
        software = self.look()
        return replace(self, description=self.description.model_copy(update={"software": software}))

    def _do(self, grant: Grant, lease: Lease) -> None:
        try:
            outcome = self._outcome(grant, lease)
        except NotWantedError:
            log.info("worker.lost", job=grant.id, attempt=grant.number)
            return
        try:
            _until_heard(lambda: self.client.finish(grant, outcome), lease)
        except BuildError as error:
            if error.code is not BuildCode.JOB_STATE:
                raise
            log.info("worker.too_late", job=grant.id, attempt=grant.number)
            return
        log.info("worker.finished", job=grant.id, code=outcome.code)

    def _outcome(self, grant: Grant, lease: Lease) -> JobOutcome:
        """Build in a folder of the job's own. What can not be built is an outcome, too."""
        try:
            with tempfile.TemporaryDirectory(prefix="stoker-job-", dir=self.scratch) as folder:
                bench = Bench(
                    Path(folder),
                    self.description.software,
                    lease.holds,
                    compiler=self.compiler,
                    prover=self.prover,
                )
                return self._built(grant, lease, bench)
        except BuildError as error:
            if error.code is BuildCode.BUILD_SERVICE:
                raise
            return JobOutcome(code=error.code, detail=error.detail[:1024], hint=error.hint[:1024])
        except OSError as error:  # this machine's disk, and no fault of the job
            detail = f"the worker can not keep its files: {error.strerror}"
            hint = "make room on the worker, or give it another --scratch"
            return JobOutcome(code=BuildCode.EXHAUSTED, detail=detail, hint=hint)

    def _built(self, grant: Grant, lease: Lease, bench: Bench) -> JobOutcome:
        """Fetch what is needed, build, and send what came out."""
        job, client = grant.job, self.client
        client.get(job.onnx, bench.onnx)
        if job.samples is not None:
            client.get(job.samples, bench.samples)
        if grant.timing_cache is not None:
            _fetch_timing(client, grant.timing_cache, bench.timing_cache)
        evidence = build(job, bench)

        def send() -> JobOutcome:
            if evidence.answers is not None:
                client.put(bench.answers)
            return JobOutcome(
                plan=client.put(bench.plan),
                timing_cache=_sent(client, bench.timing_cache),
                evidence=evidence,
            )

        return _until_heard(send, lease)


def _until_heard(say: Callable[[], _Heard], lease: Lease) -> _Heard:
    """Say what may have taken hours to find out, again and again while the service is away."""
    for pause_s in PAUSES_S:
        try:
            return say()
        except BuildError as error:
            if error.code is not BuildCode.BUILD_SERVICE or not lease.holds():
                raise
            log.warning("worker.says_it_again", detail=error.detail, in_s=pause_s)
        time.sleep(pause_s)
    return say()


def _fetch_timing(client: ServiceClient, blob: Blob, path: Path) -> None:
    """What was timed before only saves time: a build does without what is damaged."""
    try:
        client.get(blob, path)
    except BuildError as error:
        if error.code is not BuildCode.BLOB_DAMAGED:
            raise
        log.warning("worker.no_timing_cache", detail=error.detail)


def _sent(client: ServiceClient, path: Path) -> Blob | None:
    present = path.exists() and path.stat().st_size > 0
    return client.put(path) if present else None
