"""Holding on to a job: saying that it is worked at, and hearing when it is no longer ours."""

import threading
from types import TracebackType
from typing import Final

import structlog
from typing_extensions import Self

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.documents import Grant

_PER_LEASE: Final = 4

log: Final = structlog.get_logger("stoker.worker")


class Lease:
    """A context manager that renews a grant in a thread of its own."""

    def __init__(self, client: ServiceClient, grant: Grant) -> None:
        self._client = client
        self._grant = grant
        self._lost = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker.lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def holds(self) -> bool:
        """Whether the job is still ours, as far as anybody has said."""
        return not self._lost.is_set()

    def _run(self) -> None:
        while not self._done.wait(self._grant.lease_s / _PER_LEASE) and self.holds():
            self._renew()

    def _renew(self) -> None:
        try:
            self._client.renew(self._grant)
        except BuildError as error:
            if error.code is BuildCode.JOB_STATE:
                self._lost.set()
            else:  # the service may be back before the lease ends; the work goes on
                log.warning("worker.not_heard", job=self._grant.id, detail=error.detail)
