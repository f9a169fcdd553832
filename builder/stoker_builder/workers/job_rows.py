"""What is done to the rows of the store, inside a transaction of its caller."""

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.documents import (
    Blob,
    BuildJob,
    JobOutcome,
    JobView,
    WorkerDescription,
)
from stoker_builder.workers.states import (
    FINAL,
    JobEvent,
    JobState,
    UnexpectedEventError,
    after,
    loss,
)

MAX_KEPT_BYTES: Final = 1024**2
_ASK: Final = "`stoker builds list` shows how it stands"

Connection = sqlite3.Connection
Row = Any  # sqlite3.Row has no types of its columns


def insert(sql: Connection, job: BuildJob, now_s: float) -> Row:
    """A new job that waits."""
    job_id = secrets.token_hex(16)
    sql.execute(
        "INSERT INTO jobs (id, key, class, state, job, heard_s) VALUES (?, ?, ?, ?, ?, ?)",
        (job_id, job.key, job.hardware_class, JobState.WAITING, job.encode(), now_s),
    )
    return one(sql, job_id)


def share(sql: Connection, row: Row) -> None:
    """One more asks for a job that is on."""
    sql.execute(
        "INSERT INTO sharers (job, count) VALUES (?, 1)"
        " ON CONFLICT (job) DO UPDATE SET count = count + 1",
        (row["id"],),
    )


def unshare(sql: Connection, row: Row) -> bool:
    """One of those who share a job leaves it; False when nobody else has asked for it."""
    left = sql.execute(
        "UPDATE sharers SET count = count - 1 WHERE job = ? AND count > 0", (row["id"],)
    )
    return left.rowcount > 0


def one(sql: Connection, job_id: str) -> Row:
    """A job by its id.

    Raises:
        BuildError: ``JOB_STATE``, there is none.
    """
    row = sql.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise BuildError(BuildCode.JOB_STATE, f"there is no job {job_id[:32]}", _ASK)
    return row


def maker_of(sql: Connection, plan: str) -> Row:
    """The first job that a plan came from, by the plan's digest.

    Raises:
        BuildError: ``JOB_STATE``, there is none.
    """
    row = sql.execute(
        "SELECT * FROM jobs WHERE state = ?"
        " AND json_extract(CAST(outcome AS TEXT), '$.plan.digest') = ? ORDER BY number LIMIT 1",
        (JobState.DONE, plan),
    ).fetchone()
    if row is None:
        detail = f"the plan {plan[:16]}… was not compiled by this service"
        raise BuildError(BuildCode.JOB_STATE, detail, "build the release again, with --builds")
    return row


def of_attempt(sql: Connection, job_id: str, number: int) -> Row:
    """A job that is in the hands of this very attempt.

    Raises:
        BuildError: ``JOB_STATE``.
    """
    row = one(sql, job_id)
    if row["state"] != JobState.TAKEN or row["attempts"] != number:
        detail = f"the job is {row['state']}, and attempt {number} is over"
        raise BuildError(BuildCode.JOB_STATE, detail, "leave it to whoever has it now")
    return row


def job_of(row: Row) -> BuildJob:
    """What is asked for."""
    return BuildJob.parse(row["job"])


def holder_of(row: Row) -> WorkerDescription | None:
    """The last worker that took it."""
    return None if row["worker"] is None else WorkerDescription.parse(row["worker"])


def next_state(row: Row, event: JobEvent) -> JobState:
    """The state that an event leads to.

    Raises:
        BuildError: ``JOB_STATE``, the event is none for such a job.
    """
    try:
        return after(JobState(row["state"]), event)
    except UnexpectedEventError as error:
        raise BuildError(BuildCode.JOB_STATE, str(error), _ASK) from None


def take(sql: Connection, row: Row, worker: WorkerDescription, now_s: float) -> int:
    """Give it to a worker, and return the number of the attempt."""
    state = next_state(row, JobEvent.TAKE)
    number: int = row["attempts"] + 1
    sql.execute(
        "UPDATE jobs SET state = ?, attempts = ?, worker = ?, heard_s = ? WHERE id = ?",
        (state, number, worker.encode(), now_s, row["id"]),
    )
    return number


def lose(sql: Connection, row: Row) -> Row:
    """Its worker is gone: let it wait for another, or refuse it."""
    event = loss(row["attempts"], job_of(row).max_attempts)
    if event is JobEvent.LOSE:
        state = next_state(row, event)
        sql.execute("UPDATE jobs SET state = ?, woken_s = NULL WHERE id = ?", (state, row["id"]))
    else:
        detail = f"{row['attempts']} workers took it, and each ended without a word"
        hint = "look at what the workers said last; a model that ends its compiler is for a report"
        outcome = JobOutcome(
            code=BuildCode.JOB_POISONED, detail=detail, hint=hint, worker=holder_of(row)
        )
        end(sql, row, event, outcome)
    return one(sql, row["id"])


def end(sql: Connection, row: Row, event: JobEvent, outcome: JobOutcome | None) -> None:
    """The last that happens to a job."""
    state = next_state(row, event)
    told = None if outcome is None else outcome.encode()
    sql.execute(
        "UPDATE jobs SET state = ?, outcome = ?, from_cache = ? WHERE id = ?",
        (state, told, event is JobEvent.KNOWN, row["id"]),
    )


def answer_from_cache(sql: Connection, row: Row, key: str, has: Callable[[Blob], bool]) -> bool:
    """End a waiting job with what was certified under a key, if anything was.

    A result whose bytes the store no longer has is forgotten, and built again.
    """
    found = sql.execute("SELECT outcome FROM results WHERE key = ?", (key,)).fetchone()
    if found is None:
        return False
    outcome = _outcome(found["outcome"])
    if not all(map(has, outcome.fetched)):
        sql.execute("DELETE FROM results WHERE key = ?", (key,))
        return False
    end(sql, row, JobEvent.KNOWN, outcome)
    return True


def first_certified(sql: Connection, key: str, outcome: JobOutcome) -> JobOutcome:
    """Keep a certified outcome, unless there is one: then that is the answer."""
    sql.execute("INSERT OR IGNORE INTO results VALUES (?, ?)", (key, outcome.encode()))
    found = sql.execute("SELECT outcome FROM results WHERE key = ?", (key,)).fetchone()
    return _outcome(found["outcome"])


def keep_timing_cache(sql: Connection, key: str, blob: Blob | None) -> None:
    """Remember the last timing cache of a class and its software."""
    if blob is not None:
        sql.execute("INSERT OR REPLACE INTO timing VALUES (?, ?)", (key, blob.encode()))


def timing_cache(sql: Connection, key: str) -> Blob | None:
    """The timing cache that was kept last."""
    found = sql.execute("SELECT blob FROM timing WHERE key = ?", (key,)).fetchone()
    return None if found is None else Blob.parse(found["blob"])


def note_worker(sql: Connection, worker: WorkerDescription, now_s: float) -> None:
    """Remember a worker, and when it was heard."""
    sql.execute(
        "INSERT OR REPLACE INTO workers VALUES (?, ?, ?)", (worker.name, worker.encode(), now_s)
    )


def workers_of(
    sql: Connection, hardware_class: str, since_s: float | None = None
) -> Iterator[WorkerDescription]:
    """Workers of a class, the latest first; those that were ever heard, or since a time."""
    rows = sql.execute("SELECT worker, heard_s FROM workers ORDER BY heard_s DESC").fetchall()
    for row in rows:
        worker = WorkerDescription.parse(row["worker"])
        if hardware_class in worker.classes and (since_s is None or row["heard_s"] >= since_s):
            yield worker


def cancel(sql: Connection, row: Row) -> None:
    """End a job without an outcome; one that has ended stays as it is."""
    if row["state"] not in FINAL:
        end(sql, row, JobEvent.CANCEL, None)


def classes_heard(sql: Connection, since_s: float) -> frozenset[str]:
    """Classes that have a worker which was heard since a time."""
    heard = sql.execute("SELECT worker FROM workers WHERE heard_s >= ?", (since_s,)).fetchall()
    workers = (WorkerDescription.parse(row["worker"]) for row in heard)
    return frozenset(name for worker in workers for name in worker.classes)


def view(sql: Connection, job_id: str, since_s: float) -> JobView:
    """How a job stands; of the workers, those that were heard since a time."""
    row = one(sql, job_id)
    job, holder = job_of(row), holder_of(row)
    return JobView(
        id=row["id"],
        state=JobState(row["state"]),
        job=job,
        attempts=row["attempts"],
        worker=None if holder is None else holder.name,
        workers=sum(1 for _ in workers_of(sql, job.hardware_class, since_s)),
        from_cache=bool(row["from_cache"]),
        outcome=None if row["outcome"] is None else _outcome(row["outcome"]),
    )


def _outcome(data: bytes) -> JobOutcome:
    return JobOutcome.parse(data, max_bytes=MAX_KEPT_BYTES)
