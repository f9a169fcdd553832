"""Telemetry on its way up: cumulative counts of the server become windows in the outbox."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from stoker_agent.clock import Clock, timestamp
from stoker_agent.errors import ControlError, JournalError
from stoker_contract.control import TelemetrySnapshot
from stoker_contract.document import MAX_DOCUMENT_BYTES
from stoker_contract.histogram import difference
from stoker_contract.telemetry import HostFigures, LatencyWindow, Telemetry
from stoker_contract.topics import DeviceTopics

MAX_ENGINES: Final = 64
MIN_INTERVAL_S: Final = 1.0
MAX_INTERVAL_S: Final = 86_400.0
POLL_S: Final = 5.0

log: Final = structlog.get_logger("stoker.telemetry")


class Source(Protocol):
    """Who counts: the server. Raises ``ControlError``."""

    async def telemetry(self) -> TelemetrySnapshot:
        """Cumulative counts since the server started."""
        ...


class Spool(Protocol):
    """Where windows wait until the broker has them. Raises ``JournalError``."""

    def enqueue(self, topic: str, payload: bytes, /) -> None:
        """Keep a message until it is delivered."""
        ...

    def epoch(self) -> int:
        """The epoch of this start."""
        ...

    def next_seq(self) -> int:
        """The next number of a message in this epoch."""
        ...


def windows(
    earlier: TelemetrySnapshot | None, later: TelemetrySnapshot
) -> tuple[LatencyWindow, ...]:
    """What every engine did between two snapshots.

    A server that was started again counts from zero, and so does an engine that was loaded
    again; then everything it says is new.
    """
    known: Mapping[tuple[str, str], LatencyWindow] = {}
    if earlier is not None and earlier.server_id == later.server_id:
        known = {(engine.slot, engine.digest): engine for engine in earlier.engines}
    parts = (_window(known.get((now.slot, now.digest)), now) for now in later.engines)
    return tuple(part for part in parts if part.requests or part.errors or part.refused)


def _window(before: LatencyWindow | None, now: LatencyWindow) -> LatencyWindow:
    if before is None:
        return now
    try:
        return now.model_copy(
            update={
                "queue": difference(now.queue, before.queue),
                "compute": difference(now.compute, before.compute),
                "total": difference(now.total, before.total),
                "requests": _rise(now.requests, before.requests),
                "errors": _rise(now.errors, before.errors),
                "refused": _rise(now.refused, before.refused),
            }
        )
    except ValueError:
        return now


def _rise(now: int, before: int) -> int:
    if now < before:
        msg = "a count went down"
        raise ValueError(msg)
    return now - before


class Uplink:
    """Makes one telemetry document a window. Without a server there are host figures only."""

    def __init__(  # noqa: PLR0913 - the wiring of the agent, all by keyword
        self,
        server: Source,
        spool: Spool,
        topics: DeviceTopics,
        interval_s: float,
        *,
        host: Callable[[int], HostFigures],
        clock: Clock,
        on_enqueued: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._spool = spool
        self._topics = topics
        self._host = host
        self._clock = clock
        self._on_enqueued = on_enqueued
        self._previous: TelemetrySnapshot | None = None
        self._start_s = clock.unix_s()
        self.interval_s = interval_s

    async def run(self) -> None:
        """Make a window every ``interval_s`` until cancelled.

        ``interval_s`` may be changed meanwhile. It is bounded, since the notice that changes it
        is not signed.
        """
        began_s = self._clock.monotonic_s()
        while True:
            interval_s = min(max(self.interval_s, MIN_INTERVAL_S), MAX_INTERVAL_S)
            left_s = began_s + interval_s - self._clock.monotonic_s()
            if left_s > 0:
                await asyncio.sleep(min(left_s, POLL_S))
                continue
            began_s = self._clock.monotonic_s()
            await self.collect()

    async def collect(self) -> None:
        """End the window now, and keep it until the broker has it."""
        engines: tuple[LatencyWindow, ...] = ()
        server_rss_bytes = 0
        snapshot: TelemetrySnapshot | None = None
        try:
            snapshot = await self._server.telemetry()
        except ControlError as error:
            log.info("telemetry.no_server", code=error.code, detail=error.detail)
        else:
            engines, server_rss_bytes = windows(self._previous, snapshot), snapshot.rss_bytes
        end_s = self._clock.unix_s()
        parts = self._documents(engines, self._host(server_rss_bytes), self._start_s, end_s)
        kept = 0
        try:
            for part in parts:
                await asyncio.to_thread(self._spool.enqueue, self._topics.telemetry, part.encode())
                kept += 1
        except JournalError as error:
            log.warning("telemetry.not_kept", code=error.code, detail=error.detail)
        if kept == 0:
            return  # the window goes on: it is told once there is room to keep it
        self._previous, self._start_s = snapshot or self._previous, end_s
        self._on_enqueued()

    def _documents(
        self, engines: tuple[LatencyWindow, ...], host: HostFigures, start_s: float, end_s: float
    ) -> list[Telemetry]:
        """One document, or as many as it takes to keep each below the size limit."""
        document = Telemetry(
            device=self._topics.device,
            epoch=self._spool.epoch(),
            seq=self._spool.next_seq(),
            start=timestamp(start_s),
            end=timestamp(end_s),
            engines=engines[:MAX_ENGINES],
            host=host,
        )
        fits = len(document.encode()) <= MAX_DOCUMENT_BYTES
        if len(engines) <= 1 or (fits and len(engines) <= MAX_ENGINES):
            return [document]
        middle = len(engines) // 2
        first = self._documents(engines[:middle], host, start_s, end_s)
        return first + self._documents(engines[middle:], host, start_s, end_s)
