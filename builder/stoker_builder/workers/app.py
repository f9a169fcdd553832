"""A worker's process: listens to the queues of its classes until it is told to stop."""

import threading
from typing import Any, Final

import structlog
from celery import Celery, signals

from stoker_builder.errors import BuildError
from stoker_builder.workers.confirming import ConfirmedRequest
from stoker_builder.workers.queues import TASK, is_job_id, queue_of
from stoker_builder.workers.tied import tie_to_parent
from stoker_builder.workers.worker import Worker

HERE_AGAIN_S: Final = 20.0

log: Final = structlog.get_logger("stoker.worker")


def run_worker(app: Celery, worker: Worker) -> int:
    """Build what there is to build, one job at a time, until SIGTERM or Ctrl-C.

    The job that is on is ended first; a second signal does not wait for it.

    Args:
        app: as :func:`stoker_builder.workers.queues.make_app` makes it.
        worker: what it does when it is woken.

    Returns:
        The exit status.
    """

    @app.task(name=TASK, Request=ConfirmedRequest)  # type: ignore[untyped-decorator]
    def build(*said: object, **more: object) -> None:
        del more
        work(worker, *said[:1])

    def is_ready(sender: Any, **_: Any) -> None:  # noqa: ANN401  Celery's signature
        ConfirmedRequest.hub = sender.hub
        # in a thread from here on only: the process that builds is forked before
        threading.Thread(target=_announce, args=(worker,), name="announce", daemon=True).start()

    signals.worker_ready.connect(is_ready, weak=False)

    def is_forked(**_: Any) -> None:  # noqa: ANN401  Celery's signature
        tie_to_parent()  # a worker that is killed builds no more: its job belongs to another
        worker.client.forget_connections()

    signals.worker_process_init.connect(is_forked, weak=False)
    classes = worker.description.classes
    process = app.Worker(
        queues=[queue_of(name) for name in classes],
        hostname=f"{worker.description.name}@{worker.description.session}",
        concurrency=1,
        pool="prefork",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    )
    log.info("worker.listening", name=worker.description.name, classes=classes)
    process.start()
    return int(process.exitcode or 0)


def work(worker: Worker, job_id: object = None) -> None:
    """Do what a message asks for, whatever is in it. Nothing that goes wrong ends the worker."""
    if not is_job_id(job_id):
        log.warning("worker.no_job", message=repr(job_id)[:64])
        return
    try:
        worker.work(str(job_id))
    except BuildError as error:
        log.warning("worker.gave_up", job=job_id, code=error.code, detail=error.detail)


def _announce(worker: Worker) -> None:
    again = threading.Event()
    while True:
        try:
            worker.client.hear(worker.description)
        except BuildError as error:
            log.warning("worker.not_heard", code=error.code, detail=error.detail)
        again.wait(HERE_AGAIN_S)
