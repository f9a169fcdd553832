"""One slot: the engine that serves, the one before it, the one that may come next.

Flipping the route is one assignment; requests that borrowed the old engine finish on it.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import structlog

from stoker_contract.codes import ReasonCode
from stoker_contract.control import SlotStatus
from stoker_contract.engine import EngineSpec
from stoker_contract.histogram import HistogramData
from stoker_server.engine import Engine
from stoker_server.errors import ServeError
from stoker_server.settings import Settings
from stoker_server.stats import Stats
from stoker_server.tensors import InferRequest, InferResponse, checked_call, selected
from stoker_server.worker import Call, Outputs

log = structlog.get_logger()

_MAX_STATS = 16
_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """The counts at a swap: what came later is the new engine's."""

    digest: str
    requests: int
    errors: int
    restarts: int
    total: HistogramData
    before: HistogramData


class Slot:
    """One model name, and the engines behind it."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.active: Engine | None = None
        self.previous: Engine | None = None
        self.candidate: Engine | None = None
        self.lost: ServeError | None = None  # how the last candidate ended by itself
        self.trouble: ServeError | None = None  # why the slot is degraded
        self.mark: Mark | None = None
        self.refused: Counter[ReasonCode] = Counter()
        self.down = asyncio.Event()  # the active engine is gone: the recovery waits for this
        self.recovering = True  # an engine is being started: worth waiting for
        self.restoring = asyncio.Lock()
        self.admitted = 0
        self._settings = settings
        self._up = asyncio.Event()
        self._stats: dict[str, Stats] = {}

    @property
    def ready(self) -> bool:
        """Whether a request would be served now."""
        return self.active is not None and self.active.alive

    @property
    def stats(self) -> list[Stats]:
        """The counts of every artifact that served here, oldest first."""
        return list(self._stats.values())

    def new_engine(self, spec: EngineSpec) -> Engine:
        """An engine of this slot that is not started yet."""
        stats = self._stats.setdefault(spec.digest, Stats(self.name, spec.digest, spec.release))
        if len(self._stats) > _MAX_STATS:
            loaded = {e.spec.digest for e in self._loaded()} | {spec.digest}
            idle = next((digest for digest in self._stats if digest not in loaded), None)
            self._stats.pop(idle or "", None)
        return Engine(spec, self._settings, stats, self._engine_ended)

    def route(self, engine: Engine | None) -> float:
        """Let requests go to ``engine`` from now on. Returns the time it took in microseconds."""
        start_ns = time.perf_counter_ns()
        self.active = engine
        flip_us = (time.perf_counter_ns() - start_ns) / 1000
        if engine is not None:
            self._up.set()
        return flip_us

    def came_up(self) -> None:
        """The active engine was started again: let the requests that wait for it go on."""
        self._up.set()

    def take_mark(self, engine: Engine, old: Engine | None) -> None:
        """Remember the counts at a swap."""
        self.mark = Mark(
            digest=engine.spec.digest,
            requests=engine.stats.requests,
            errors=engine.stats.errors,
            restarts=engine.stats.restarts,
            total=engine.stats.total.data(),
            before=old.stats.total.data() if old else HistogramData(),
        )

    def status(self) -> SlotStatus:
        """What the control socket tells about it."""
        return SlotStatus(
            active=self.active.status() if self.active else None,
            previous=self.previous.status() if self.previous else None,
            candidate=self.candidate.status() if self.candidate else None,
            ready=self.ready,
            degraded=self.trouble is not None,
            reason=self.trouble.code if self.trouble else None,
            detail=self.trouble.detail if self.trouble else "",
        )

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer one request.

        Raises:
            ServeError: why it was not answered.
        """
        arrival_ns = time.monotonic_ns()
        if self.admitted >= self._settings.max_queue:
            self._count_refusal(ReasonCode.QUEUE_FULL)
            detail = f"{self.admitted} requests are waiting already; try again later"
            raise ServeError(ReasonCode.QUEUE_FULL, detail)
        self.admitted += 1
        try:
            if request.timeout_s is None:
                return await self._answer(request, arrival_ns)
            try:
                async with asyncio.timeout(request.timeout_s):
                    return await self._answer(request, arrival_ns)
            except TimeoutError:
                detail = f"no answer within {request.timeout_s:g} s, as the request asked"
                raise ServeError(ReasonCode.DEADLINE, detail) from None
        finally:
            self.admitted -= 1

    async def _answer(self, request: InferRequest, arrival_ns: int) -> InferResponse:
        for attempt in range(_ATTEMPTS):
            engine = await self._serving()
            _check_version(engine, request.version)
            try:
                call = checked_call(engine.spec.io, request)
            except ServeError as error:
                engine.stats.failed(error.code, 0, dispatched=False)
                raise
            try:
                with engine.lease():
                    outputs = await engine.run(call)
            except ServeError as error:
                retry = error.code is ReasonCode.ENGINE_CRASHED and attempt + 1 < _ATTEMPTS
                if retry:  # nothing was answered: once more, on whoever serves now
                    continue
                waited_ns = time.monotonic_ns() - arrival_ns
                engine.stats.failed(error.code, waited_ns, dispatched=True)
                raise
            except asyncio.CancelledError:
                waited_ns = time.monotonic_ns() - arrival_ns
                engine.stats.failed(ReasonCode.DEADLINE, waited_ns, dispatched=True)
                raise
            return _response(engine, call, outputs, arrival_ns)
        raise AssertionError  # the last attempt returns or raises

    async def _serving(self) -> Engine:
        engine = self.active
        if engine is not None and engine.alive:
            return engine
        coming = self.recovering or engine is not None
        wait_s = self._settings.max_wait_s if coming else 0
        try:
            async with asyncio.timeout(wait_s):
                while engine is None or not engine.alive:
                    self._up.clear()
                    await self._up.wait()
                    engine = self.active
        except TimeoutError:
            self._count_refusal(ReasonCode.NO_ENGINE)
            why = f": {self.trouble.detail}" if self.trouble else ""
            detail = f"no engine serves {self.name} now{why}"
            raise ServeError(ReasonCode.NO_ENGINE, detail) from None
        return engine

    def _count_refusal(self, code: ReasonCode) -> None:
        self.refused[code] += 1
        if self.active is not None:
            self.active.stats.refused[code] += 1

    def _loaded(self) -> list[Engine]:
        return [e for e in (self.active, self.previous, self.candidate) if e is not None]

    def _engine_ended(self, engine: Engine, error: ServeError) -> None:
        role = "active"
        if engine is self.candidate:
            self.candidate, self.lost, role = None, error, "candidate"
        elif engine is self.previous:
            self.previous, role = None, "previous"
        elif engine is self.active:
            self.down.set()
        log.warning(
            "engine.ended",
            slot=self.name,
            role=role,
            release=engine.spec.release,
            code=str(error.code),
            detail=error.detail,
        )


def _check_version(engine: Engine, version: str) -> None:
    if not version or engine.spec.release.rpartition("/")[2] == version:
        return
    shortest_digest = 6
    if len(version) < shortest_digest or not engine.spec.digest.startswith(version):
        detail = f"version {version} is not served; {engine.spec.release} is"
        raise ServeError(ReasonCode.UNKNOWN_MODEL, detail)


def _response(engine: Engine, call: Call, outputs: Outputs, arrival_ns: int) -> InferResponse:
    engine.stats.answered(
        queue_ns=outputs.start_ns - arrival_ns,
        compute_ns=outputs.compute_ns,
        total_ns=time.monotonic_ns() - arrival_ns,
    )
    specs = selected(engine.spec.io, call.wanted)
    return InferResponse(
        digest=engine.spec.digest,
        release=engine.spec.release,
        outputs=tuple(zip(specs, outputs.shapes, outputs.buffers, strict=True)),
    )
