"""One artifact in a slot: its worker (and the next one after a crash), its leases, its counts."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stoker_contract.codes import ReasonCode
from stoker_contract.control import EngineStatus
from stoker_contract.engine import EngineSpec
from stoker_server import launch, procfs
from stoker_server.errors import ServeError
from stoker_server.launch import Launch
from stoker_server.settings import Settings
from stoker_server.stats import Stats
from stoker_server.worker import Call, Outputs, Worker

OnEnd = Callable[["Engine", ServeError], None]


class Engine:
    """An artifact that is loaded, or is being loaded again.

    Requests borrow it with :meth:`lease`; whoever closes it waits for :meth:`drained` first.
    """

    def __init__(self, spec: EngineSpec, settings: Settings, stats: Stats, on_end: OnEnd) -> None:
        self.spec = spec
        self.stats = stats
        self.leases = 0
        self.restarts = 0
        self.closed = False
        self._settings = settings
        self._on_end = on_end
        self._worker: Worker | None = None
        self._known: Worker | None = None  # the last one, also after its end
        self._starting: asyncio.Task[Worker] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._crashes: deque[float] = deque(maxlen=settings.max_crashes + 1)

    @property
    def alive(self) -> bool:
        """Whether requests can be given to it now."""
        return self._worker is not None and self._worker.alive

    @property
    def worker(self) -> Worker:
        """The living worker.

        Raises:
            ServeError: ``ENGINE_CRASHED``, there is none.
        """
        if self._worker is None:
            raise ServeError(ReasonCode.ENGINE_CRASHED, "the engine is not running")
        return self._worker

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the worker."""
        return procfs.resident_bytes(self._worker.pid) if self._worker else 0

    async def start(self, how: Launch) -> Worker:
        """Start a worker.

        Raises:
            ServeError: why it does not serve.
        """
        starting = Worker.start(self.spec, self._settings, how)
        self._starting = asyncio.create_task(starting, name=f"engine.start.{self.spec.release}")
        try:
            worker = await self._starting
        except asyncio.CancelledError:
            if not self.closed:
                raise
            detail = "the engine was closed while it was loading"
            raise ServeError(ReasonCode.NO_ENGINE, detail) from None
        finally:
            self._starting = None
        self._worker = self._known = worker
        worker.notify_end(self._ended)
        return worker

    def promote(self) -> bool:
        """Give the worker the priority of one that serves. False when it is not permitted."""
        return launch.promote(self.worker.pid)

    def demote(self) -> None:
        """Take the priority of a candidate again, where it can be given back later."""
        if self._worker is not None and procfs.may_raise_priority():
            niceness = procfs.own_niceness() + self._settings.candidate_niceness
            procfs.set_priority(self._worker.pid, niceness)

    async def run(self, call: Call) -> Outputs:
        """Run once. See :meth:`stoker_server.worker.Worker.run`."""
        return await self.worker.run(call)

    @contextmanager
    def lease(self) -> Iterator["Engine"]:
        """Borrow the engine for one request."""
        self.leases += 1
        self._idle.clear()
        try:
            yield self
        finally:
            self.leases -= 1
            if self.leases == 0:
                self._idle.set()

    async def drained(self, timeout_s: float) -> int:
        """Wait for the last lease. Returns how many there still are at the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        return self.leases

    async def close(self) -> None:
        """End the worker. What it still runs fails and is tried elsewhere by its owner."""
        self.closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait((self._starting,))
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()

    @property
    def recent_crashes(self) -> int:
        """How many workers crashed within the crash window."""
        horizon_s = time.monotonic() - self._settings.crash_window_s
        return sum(at_s > horizon_s for at_s in self._crashes)

    def status(self) -> EngineStatus | None:
        """What the control socket tells about it; None before its first worker loaded.

        Between a crash and the restart it tells of the worker that ended: who is to serve has
        not changed, and the slot says that it is not ready.
        """
        if self._known is None:
            return None
        return EngineStatus(
            digest=self._known.handshake.digest,
            release=self.spec.release,
            pid=self._known.pid,
            restarts=self.restarts,
            rss_bytes=self.rss_bytes,
            requests=self.stats.requests,
            errors=self.stats.errors,
            leases=self.leases,
        )

    def _ended(self, error: ServeError) -> None:
        if self.closed:
            return
        self._worker = None
        self._crashes.append(time.monotonic())
        self._on_end(self, error)
