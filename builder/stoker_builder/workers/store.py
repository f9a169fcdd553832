"""The jobs, and all that is decided about them. The only place that knows how a job stands.

Every method is one transaction. Time is a monotonic clock that comes in; it does not outlive the
machine, so a store that is opened grants all leases anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers import job_rows as rows
from stoker_builder.workers.blobs import BlobStore
from stoker_builder.workers.database import Database
from stoker_builder.workers.documents import (
    MAX_LISTED,
    Blob,
    BuildJob,
    Grant,
    JobOutcome,
    JobView,
    WorkerDescription,
    WorkerView,
)
from stoker_builder.workers.states import JobEvent, JobState

LEASE_S: Final = 60.0
WAKE_AGAIN_S: Final = 60.0
SEEN_LATELY_S: Final = 60.0


class Wake(NamedTuple):
    """A message that the workers of a class should get."""

    hardware_class: str
    job: str


class JobStore:
    """Jobs in a folder.

    Args:
        folder: the database, and the blobs beside it.
        clock: seconds, monotonic.
        lease_s: a worker that says nothing for so long has lost its job.
        wake_again_s: a job that waits is announced again after so long: brokers forget.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float],
        *,
        lease_s: float = LEASE_S,
        wake_again_s: float = WAKE_AGAIN_S,
    ) -> None:
        self.blobs = BlobStore(folder / "blobs")
        self._database = Database(folder / "builds.sqlite")
        self._clock = clock
        self._lease_s = lease_s
        self._wake_again_s = wake_again_s
        with self._database.change() as sql:
            sql.execute("UPDATE jobs SET heard_s = ?, woken_s = NULL", (clock(),))
            sql.execute("UPDATE workers SET heard_s = ?", (clock() - 2 * SEEN_LATELY_S,))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def submit(self, job: BuildJob) -> JobView:
        """Take a job on, unless it is known already: then the answer is that job, or its result.

        Raises:
            BuildError: ``BLOB_DAMAGED``: what it is made from is not here.
        """
        self._check_present((job.onnx, job.samples), "job")
        with self._database.change() as sql:
            row = sql.execute(
                "SELECT * FROM jobs WHERE key = ? AND state IN (?, ?)",
                (job.key, JobState.WAITING, JobState.TAKEN),
            ).fetchone()
            if row is None:
                row = rows.insert(sql, job, self._clock())
                for worker in rows.workers_of(sql, job.hardware_class):
                    if rows.answer_from_cache(
                        sql, row, worker.software.key_of(job), self.blobs.has
                    ):
                        break
            else:
                rows.share(sql, row)
            return rows.view(sql, row["id"], self._lately_s())

    def take(self, job_id: str, worker: WorkerDescription) -> Grant | None:
        """Give a waiting job to a worker; None when it ends here and now without being built.

        Raises:
            BuildError: ``JOB_STATE``: it does not wait, or not for this worker.
        """
        with self._database.change() as sql:
            rows.note_worker(sql, worker, self._clock())
            row = rows.one(sql, job_id)
            job = rows.job_of(row)
            if job.hardware_class not in worker.classes:
                detail = f"the job is for {job.hardware_class}, and {worker.name} is not"
                raise BuildError(BuildCode.JOB_STATE, detail, "give the worker that class")
            if self._is_lost(row) or _is_forgotten(row, worker):
                row = rows.lose(sql, row)
                if row["state"] == JobState.REFUSED:
                    return None
            if row["state"] == JobState.WAITING and rows.answer_from_cache(
                sql, row, worker.software.key_of(job), self.blobs.has
            ):
                return None
            return Grant(
                id=job_id,
                number=rows.take(sql, row, worker, self._clock()),
                job=job,
                lease_s=self._lease_s,
                timing_cache=rows.timing_cache(sql, worker.software.timing_key(job.hardware_class)),
            )

    def renew(self, job_id: str, number: int) -> None:
        """Hear that a worker is still at it.

        Raises:
            BuildError: ``JOB_STATE``: the job is no longer that worker's.
        """
        with self._database.change() as sql:
            rows.of_attempt(sql, job_id, number)
            sql.execute("UPDATE jobs SET heard_s = ? WHERE id = ?", (self._clock(), job_id))

    def finish(self, job_id: str, number: int, outcome: JobOutcome) -> JobView:
        """Take the outcome of an attempt. Of equal certified ones, the first is everybody's.

        Raises:
            BuildError: ``JOB_STATE``: the job is no longer that worker's; ``BLOB_DAMAGED``:
                what the outcome names was not sent.
        """
        answers = None if outcome.evidence is None else outcome.evidence.answers
        self._check_present((outcome.plan, outcome.timing_cache, answers), "outcome")
        with self._database.change() as sql:
            row = rows.of_attempt(sql, job_id, number)
            # what it was when it took the job: its later words change no key
            worker = rows.holder_of(row)
            told = outcome.model_copy(update={"worker": worker})
            event = JobEvent.FAIL
            if outcome.is_certified and worker is not None:
                event = JobEvent.SUCCEED
                told = rows.first_certified(sql, worker.software.key_of(rows.job_of(row)), told)
                timing_key = worker.software.timing_key(row["class"])
                rows.keep_timing_cache(sql, timing_key, outcome.timing_cache)
            rows.end(sql, row, event, told)
            return rows.view(sql, job_id, self._lately_s())

    def withdraw(self, job_id: str) -> JobView:
        """Take back one :meth:`submit`; the job ends when nobody else asked for it, too.

        Raises:
            BuildError: ``JOB_STATE``: there is no such job.
        """
        with self._database.change() as sql:
            row = rows.one(sql, job_id)
            if not rows.unshare(sql, row):
                rows.cancel(sql, row)
            return rows.view(sql, job_id, self._lately_s())

    def cancel(self, job_id: str) -> JobView:
        """End a job, whoever asked for it; one that has ended stays as it is.

        Raises:
            BuildError: ``JOB_STATE``: there is no such job.
        """
        with self._database.change() as sql:
            rows.cancel(sql, rows.one(sql, job_id))
            return rows.view(sql, job_id, self._lately_s())

    def hear(self, worker: WorkerDescription) -> None:
        """Remember what a worker says of itself, and that it lives."""
        with self._database.change() as sql:
            rows.note_worker(sql, worker, self._clock())

    def sweep(self) -> tuple[Wake, ...]:
        """Take jobs from workers that are gone, and say who has to be woken now.

        A class without a worker is not: what nobody fetches would gather in the broker.
        """
        with self._database.change() as sql:
            taken = sql.execute("SELECT * FROM jobs WHERE state = ?", (JobState.TAKEN,)).fetchall()
            for row in taken:
                if self._is_lost(row):
                    rows.lose(sql, row)
            asleep = sql.execute(
                "SELECT class, id FROM jobs WHERE state = ? AND (woken_s IS NULL OR woken_s <= ?)"
                " ORDER BY number",
                (JobState.WAITING, self._clock() - self._wake_again_s),
            ).fetchall()
            heard = rows.classes_heard(sql, self._lately_s()) if asleep else frozenset()
            return tuple(Wake(row["class"], row["id"]) for row in asleep if row["class"] in heard)

    def woken(self, job_id: str) -> None:
        """Remember that the workers of a job's class were told."""
        with self._database.change() as sql:
            sql.execute("UPDATE jobs SET woken_s = ? WHERE id = ?", (self._clock(), job_id))

    def view(self, job_id: str) -> JobView:
        """How a job stands.

        Raises:
            BuildError: ``JOB_STATE``: there is no such job.
        """
        with self._database.change() as sql:
            return rows.view(sql, job_id, self._lately_s())

    def maker_of(self, digest: str) -> JobView:
        """The job that a plan came from.

        Raises:
            BuildError: ``JOB_STATE``: none of those here.
        """
        with self._database.change() as sql:
            row = rows.maker_of(sql, digest)
            return rows.view(sql, row["id"], self._lately_s())

    def jobs(self) -> tuple[JobView, ...]:
        """The last jobs, the newest first."""
        with self._database.change() as sql:
            ids = sql.execute("SELECT id FROM jobs ORDER BY number DESC LIMIT ?", (MAX_LISTED,))
            return tuple(rows.view(sql, row["id"], self._lately_s()) for row in ids.fetchall())

    def workers(self) -> tuple[WorkerView, ...]:
        """Workers that were heard of, the latest first."""
        with self._database.change() as sql:
            heard = sql.execute(
                "SELECT worker, heard_s FROM workers ORDER BY heard_s DESC LIMIT ?", (MAX_LISTED,)
            ).fetchall()
        now_s = self._clock()
        return tuple(
            WorkerView(
                worker=WorkerDescription.parse(row["worker"]),
                silent_s=max(now_s - row["heard_s"], 0.0),
            )
            for row in heard
        )

    def _check_present(self, blobs: tuple[Blob | None, ...], what: str) -> None:
        for blob in blobs:
            if blob is not None and not self.blobs.has(blob):
                detail = f"the {what} names the bytes {blob.digest[:16]}…, which are not here"
                raise BuildError(BuildCode.BLOB_DAMAGED, detail, f"send them before the {what}")

    def _lately_s(self) -> float:
        return self._clock() - SEEN_LATELY_S

    def _is_lost(self, row: rows.Row) -> bool:
        silent_s: float = self._clock() - row["heard_s"]
        return row["state"] == JobState.TAKEN and silent_s > self._lease_s


def _is_forgotten(row: rows.Row, worker: WorkerDescription) -> bool:
    """Whether the worker had taken it before: it builds one at a time, so that attempt is over."""
    holder = rows.holder_of(row)
    return (
        row["state"] == JobState.TAKEN and holder is not None and holder.session == worker.session
    )
