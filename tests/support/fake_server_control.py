"""A ``ServerControl`` in memory that keeps the promises of the real server.

It boots from the slot files as the real one does, holds active, previous and candidate per slot,
and can fail, block or die at any operation.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from stoker_agent.errors import ControlError
from stoker_agent.state.slots import SlotFiles
from stoker_contract.codes import ReasonCode
from stoker_contract.control import (
    EngineStatus,
    GoldenResult,
    Load,
    Loaded,
    Observed,
    Op,
    Retire,
    Retired,
    RunGolden,
    ServerStatus,
    SlotStatus,
    SlotTimeout,
    Swapped,
    TelemetrySnapshot,
    Warmed,
)
from stoker_contract.engine import EngineSpec
from stoker_contract.histogram import Histogram

_SERVER_NUMBERS = itertools.count(1)
MS = 1_000_000


@dataclass
class FakeSlot:
    """The engines of a slot."""

    active: EngineSpec | None = None
    previous: EngineSpec | None = None
    candidate: EngineSpec | None = None


@dataclass
class FakeServerControl:
    """The server.

    Attributes:
        failures: an operation in here fails with that error.
        gates: an operation in here waits for its event before it is done.
        reached: set when a gated operation was asked for.
        score: of every golden set.
        p99_ms: of every live request; also of every request before the swap.
        requests: live requests since the swap.
        started: digests in the order they were loaded.
    """

    slots_dir: Path
    up: bool = True
    server_id: str = ""
    slots: dict[str, FakeSlot] = field(default_factory=dict)
    failures: dict[Op, ControlError] = field(default_factory=dict)
    gates: dict[Op, asyncio.Event] = field(default_factory=dict)
    reached: dict[Op, asyncio.Event] = field(default_factory=dict)
    calls: list[Op] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    score: float = 1.0
    p99_ms: float = 2.0
    active_p99_ms: float = 2.0
    requests: int = 1000
    errors: int = 0
    restarts: int = 0
    polls: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Boot: what the slot files name serves; candidates and probations are forgotten."""
        self.server_id = f"server-{next(_SERVER_NUMBERS)}"
        self.up = True
        files = SlotFiles(self.slots_dir).read_all()
        self.slots = {name: FakeSlot(active=file.current) for name, file in files.items()}

    def hold(self, op: Op) -> asyncio.Event:
        """Make an operation wait; returns the event that is set when it was asked for."""
        self.gates[op] = asyncio.Event()
        self.reached[op] = asyncio.Event()
        return self.reached[op]

    def let_go(self, op: Op) -> None:
        """Let a held operation go on, and the next ones too."""
        self.gates.pop(op).set()

    def serves(self, slot: str) -> str | None:
        """The release a request would get."""
        engine = self.slots.get(slot, FakeSlot()).active
        return engine.release if engine else None

    async def status(self) -> ServerStatus:
        """What is loaded."""
        self.polls += 1
        if not self.up:
            raise ControlError(ReasonCode.SERVER_UNAVAILABLE, "the server is down")
        return ServerStatus(
            server_id=self.server_id,
            pid=1,
            slots={
                name: SlotStatus(
                    active=_status(slot.active),
                    previous=_status(slot.previous),
                    candidate=_status(slot.candidate),
                    ready=slot.active is not None,
                )
                for name, slot in self.slots.items()
            },
        )

    async def load(self, args: Load) -> Loaded:
        """Start a candidate beside the active engine."""
        await self._enter(Op.LOAD)
        assert _size(args.spec.path) == args.spec.length, "only whole blobs load"
        self.slots.setdefault(args.slot, FakeSlot()).candidate = args.spec
        self.started.append(args.spec.digest)
        return Loaded(digest=args.spec.digest, pid=2, io=args.spec.io, load_s=0.1, rss_bytes=1000)

    async def warm(self, args: SlotTimeout) -> Warmed:
        """Run the candidate until its latency settles."""
        await self._enter(Op.WARM)
        self._candidate(args.slot)
        return Warmed(runs=30, warm_s=0.1, p50_ms=1.0)

    async def golden(self, args: RunGolden) -> GoldenResult:
        """Compare the candidate with its golden set, and its latency with the active engine."""
        await self._enter(Op.GOLDEN)
        self._candidate(args.slot)
        assert _size(args.path), "the golden file is in the store"
        return GoldenResult(
            score=self.score,
            samples=args.golden.samples,
            worst_error=0.0,
            latency_samples=args.min_samples,
            candidate_p50_ms=1.0,
            candidate_p99_ms=self.p99_ms,
            active_p50_ms=1.0,
            active_p99_ms=self.active_p99_ms,
        )

    async def swap(self, slot: str) -> Swapped:
        """Route new requests to the candidate; the old engine stays warm."""
        await self._enter(Op.SWAP)
        found = self.slots[slot]
        candidate = self._candidate(slot)
        found.previous, found.active, found.candidate = found.active, candidate, None
        previous = found.previous.digest if found.previous else None
        return Swapped(active=candidate.digest, previous=previous, flip_us=10.0)

    async def observe(self, slot: str) -> Observed:
        """Live traffic since the swap."""
        await self._enter(Op.OBSERVE)
        active = self.slots[slot].active
        assert active is not None
        return Observed(
            digest=active.digest,
            requests=self.requests,
            errors=self.errors,
            restarts=self.restarts,
            total=Histogram.of([int(self.p99_ms * MS)] * self.requests).data(),
            before=Histogram.of([int(self.active_p99_ms * MS)] * 1000).data(),
        )

    async def restore(self, slot: str) -> Swapped:
        """Route requests to the old engine again and close the candidate."""
        await self._enter(Op.RESTORE)
        found = self.slots[slot]
        old = found.previous
        found.active, found.previous = old, None
        return Swapped(active=old.digest if old else None, flip_us=10.0)

    async def retire(self, args: Retire) -> Retired:
        """Drain and close the old engine."""
        await self._enter(Op.RETIRE)
        self.slots[args.slot].previous = None
        return Retired(drain_ms=1.0, dropped=0)

    async def abort(self, slot: str) -> None:
        """Close the candidate, if there is one."""
        await self._enter(Op.ABORT)
        self.slots.setdefault(slot, FakeSlot()).candidate = None

    async def telemetry(self) -> TelemetrySnapshot:
        """Cumulative counts since the server started."""
        return TelemetrySnapshot(server_id=self.server_id)

    async def _enter(self, op: Op) -> None:
        await self.status()
        self.calls.append(op)
        if op in self.gates:
            self.reached[op].set()
            await self.gates[op].wait()
            await self.status()
        if op in self.failures:
            raise self.failures[op]

    def _candidate(self, slot: str) -> EngineSpec:
        candidate = self.slots.setdefault(slot, FakeSlot()).candidate
        if candidate is None:
            raise ControlError(ReasonCode.NO_ENGINE, "no candidate is loaded")
        return candidate


def _size(path: str) -> int:
    return Path(path).stat().st_size


def _status(spec: EngineSpec | None) -> EngineStatus | None:
    return EngineStatus(digest=spec.digest, release=spec.release, pid=2) if spec else None
