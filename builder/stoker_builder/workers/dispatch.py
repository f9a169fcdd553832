"""Telling workers that there is something to do, as often as it takes."""

import sqlite3
import threading
from typing import Final, Protocol

import structlog

from stoker_builder.workers.store import JobStore

EVERY_S: Final = 1.0
_PATIENCE_S: Final = 1.0

log: Final = structlog.get_logger("stoker.builds")


class WakeError(Exception):
    """Nobody could be told; the job waits, and it is tried again."""


class Waker(Protocol):
    """What reaches the workers of a class."""

    def wake(self, hardware_class: str, job_id: str) -> None:
        """Tell one of them about a job.

        Raises:
            WakeError: nobody was told.
        """


class Dispatcher:
    """Takes jobs from workers that are gone, and wakes others, until it is told to stop."""

    def __init__(self, store: JobStore, waker: Waker, *, every_s: float = EVERY_S) -> None:
        self._store = store
        self._waker = waker
        self._every_s = every_s
        self._nudged = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="builds.dispatcher", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def nudge(self) -> None:
        """There may be something new: do not wait for the next round."""
        self._nudged.set()

    def stop(self) -> None:
        """End after the round that is on, unless a broker that is gone keeps it."""
        self._stopping = True
        self._nudged.set()
        self._thread.join(_PATIENCE_S)

    def step(self) -> None:
        """One round."""
        for wake in self._store.sweep():
            try:
                self._waker.wake(wake.hardware_class, wake.job)
            except WakeError as error:
                log.warning("build.not_announced", job=wake.job, detail=str(error))
                return  # the rest waits with it
            self._store.woken(wake.job)
            log.info("build.announced", job=wake.job, hardware_class=wake.hardware_class)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.step()
            except sqlite3.Error as error:  # a full disk, say; it may have room again
                log.error("builds.store_failed", detail=str(error))  # noqa: TRY400  no traceback
            self._nudged.wait(self._every_s)
            self._nudged.clear()
