"""What the agent can ask for. The agent decides; these act, measure, and refuse by code."""

import time

import structlog

from stoker_contract.codes import ReasonCode
from stoker_contract.control import (
    GoldenResult,
    Load,
    Loaded,
    Observed,
    Retire,
    Retired,
    RunGolden,
    SlotOnly,
    SlotTimeout,
    Swapped,
    Warmed,
)
from stoker_contract.histogram import difference
from stoker_server import slotfiles, trial
from stoker_server.dataplane import DataPlane
from stoker_server.engine import Engine
from stoker_server.errors import ServeError
from stoker_server.launch import Launch
from stoker_server.slot import Slot

log = structlog.get_logger()


class Operations:
    """The operations on slots. Each runs beside inference and never holds it up."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def load(self, args: Load) -> Loaded:
        """Start a candidate beside the active engine. The same one again is not started twice."""
        slot = self._plane.slot_or_new(args.slot)
        old = slot.candidate
        if old is not None and old.alive and old.spec == args.spec:
            return _loaded(old)
        await self.abort(SlotOnly(slot=args.slot))
        engine = slot.candidate = slot.new_engine(args.spec)
        how = Launch(args.timeout_s, candidate=True, memory_limit_bytes=args.memory_limit_bytes)
        try:
            await engine.start(how)
        except BaseException:
            if slot.candidate is engine:
                slot.candidate = None
            raise
        log.info("candidate.loaded", slot=slot.name, release=args.spec.release)
        return _loaded(engine)

    async def warm(self, args: SlotTimeout) -> Warmed:
        """Run the candidate until its latency is steady."""
        slot, candidate = self._candidate(args.slot)
        try:
            return await trial.warm_up(candidate, args.timeout_s)
        finally:
            _forget_closed(slot, candidate)

    async def golden(self, args: RunGolden) -> GoldenResult:
        """Score the candidate and compare its latency with that of the active engine."""
        slot, candidate = self._candidate(args.slot)
        active = slot.active if slot.ready else None
        try:
            return await trial.run_golden(candidate, active, args)
        finally:
            _forget_closed(slot, candidate)

    async def swap(self, args: SlotOnly) -> Swapped:
        """Let the candidate serve. The engine before it stays warm."""
        slot, candidate = self._candidate(args.slot)
        old, older = slot.active, slot.previous
        priority_restored = candidate.promote()
        slot.take_mark(candidate, old)
        flip_us = slot.route(candidate)
        slot.candidate, slot.previous, slot.trouble = None, old, None
        if older is not None:
            self._close_later(older)
        log.info(
            "engine.swapped",
            slot=slot.name,
            release=candidate.spec.release,
            flip_us=flip_us,
            priority_restored=priority_restored,
        )
        return Swapped(
            active=candidate.spec.digest,
            previous=old.spec.digest if old else None,
            flip_us=flip_us,
        )

    async def observe(self, args: SlotOnly) -> Observed:
        """Live traffic since the swap, and before it."""
        slot = self._plane.slot(args.slot)
        engine, mark = slot.active, slot.mark
        if engine is None or mark is None:
            raise ServeError(ReasonCode.NO_ENGINE, f"nothing was swapped in {slot.name}")
        stats = engine.stats
        same = engine.spec.digest == mark.digest
        return Observed(
            digest=engine.spec.digest,
            requests=stats.requests - mark.requests if same else 0,
            errors=stats.errors - mark.errors if same else 0,
            restarts=stats.restarts - mark.restarts if same else 0,
            total=difference(stats.total.data(), mark.total) if same else mark.before,
            before=mark.before,
            rss_bytes=engine.rss_bytes,
        )

    async def restore(self, args: SlotOnly) -> Swapped:
        """Let the engine before the swap serve again, and close the one that replaced it.

        Without a warm one, what the slot file names is started; where nothing was ever committed,
        nothing serves afterwards. Asked twice, it does nothing.
        """
        slot = self._plane.slot(args.slot)
        async with slot.restoring:  # loading takes longer than an impatient agent waits
            return await self._restore(slot, args)

    async def _restore(self, slot: Slot, args: SlotOnly) -> Swapped:
        await self.abort(args)
        target = await self._restorable(slot)
        replaced = slot.active  # read now: the recovery may have been faster than the load
        active = target.spec.digest if target else None
        if target is replaced:
            return Swapped(active=active, flip_us=0.0)
        flip_us = slot.route(target)
        slot.previous, slot.trouble, slot.mark = None, None, None
        if replaced is not None:
            self._close_later(replaced)
        release = target.spec.release if target else None
        log.info("engine.restored", slot=slot.name, release=release, flip_us=flip_us)
        return Swapped(
            active=active,
            previous=replaced.spec.digest if replaced else None,
            flip_us=flip_us,
        )

    async def retire(self, args: Retire) -> Retired:
        """Drain the engine before the swap and close it."""
        slot = self._plane.slot(args.slot)
        engine, slot.previous = slot.previous, None
        if engine is None:
            return Retired(drain_ms=0.0, dropped=0)
        rss_bytes = engine.rss_bytes
        began_ns = time.monotonic_ns()
        dropped = await self._drain_and_close(engine, args.drain_timeout_s)
        drain_ms = (time.monotonic_ns() - began_ns) / 1e6
        return Retired(drain_ms=drain_ms, dropped=dropped, rss_freed_bytes=rss_bytes)

    async def abort(self, args: SlotOnly) -> None:
        """Close the candidate, if there is one."""
        slot = self._plane.slot(args.slot)
        candidate, slot.candidate, slot.lost = slot.candidate, None, None
        if candidate is not None:
            await candidate.close()

    def _candidate(self, name: str) -> tuple[Slot, Engine]:
        slot = self._plane.slot(name)
        if slot.candidate is None and slot.lost is not None:
            raise ServeError(slot.lost.code, f"the candidate is gone: {slot.lost.detail}")
        if slot.candidate is None or not slot.candidate.alive:
            raise ServeError(ReasonCode.NO_ENGINE, f"no candidate is loaded in {name}")
        return slot, slot.candidate

    async def _restorable(self, slot: Slot) -> Engine | None:
        if slot.previous is not None and slot.previous.alive:
            return slot.previous
        chain = slotfiles.chain(self._plane.settings.state_dir / "slots", slot.name)
        if not chain:  # a first release: there is nothing to go back to
            return None
        if slot.active is not None and slot.active.spec.digest == chain[0].digest and slot.ready:
            return slot.active
        engine = slot.new_engine(chain[0])
        await engine.start(Launch(self._plane.settings.load_timeout_s))
        return engine

    def _close_later(self, engine: Engine) -> None:
        async def close() -> None:
            await self._drain_and_close(engine, self._plane.settings.drain_timeout_s)

        self._plane.spawn(close(), name=f"engine.close.{engine.spec.release}")

    async def _drain_and_close(self, engine: Engine, timeout_s: float) -> int:
        dropped = await engine.drained(timeout_s)
        await engine.close()
        log.info("engine.closed", release=engine.spec.release, dropped=dropped)
        return dropped


def _loaded(engine: Engine) -> Loaded:
    handshake = engine.worker.handshake
    return Loaded(
        digest=handshake.digest,
        pid=handshake.pid,
        io=handshake.io,
        load_s=handshake.load_s,
        rss_bytes=handshake.rss_bytes,
    )


def _forget_closed(slot: Slot, candidate: Engine) -> None:
    if candidate.closed and slot.candidate is candidate:
        slot.candidate = None
