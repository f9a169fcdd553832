"""Effects on the engines of the server. Every one of them can be repeated."""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from stoker_agent.app.run import Run, Tuning
from stoker_agent.core.deployment import Event
from stoker_agent.core.gates import judge_golden
from stoker_agent.core.plan import restored_slot
from stoker_agent.core.ports import ServerControl
from stoker_agent.core.record import SlotPlan
from stoker_agent.errors import AgentError, ControlError
from stoker_agent.state.slots import SlotFiles
from stoker_agent.state.store import BlobStore
from stoker_contract.codes import ReasonCode
from stoker_contract.control import (
    Load,
    Retire,
    RunGolden,
    ServerStatus,
    SlotStatus,
    SlotTimeout,
)
from stoker_contract.engine import EngineSpec, SlotFile

RETIRE_MARGIN_S: Final = 60.0

log: Final = structlog.get_logger("stoker.engines")


@dataclass(slots=True)
class EngineEffects:
    """Asks the server, and judges what it answers."""

    slots: SlotFiles
    store: BlobStore
    server: ServerControl
    tuning: Tuning

    async def server_answers(self) -> ServerStatus:
        """Wait until the server answers, however long that takes."""
        while True:
            try:
                return await self.server.status()
            except ControlError as error:
                if error.code is not ReasonCode.SERVER_UNAVAILABLE:
                    raise
            await asyncio.sleep(self.tuning.poll_s)

    async def answer_for(self, run: Run) -> ServerStatus:
        """As :meth:`server_answers`; a deadline that comes meanwhile has this cause."""
        run.waits_for = ReasonCode.SERVER_UNAVAILABLE
        status = await self.server_answers()
        run.waits_for = None
        return status

    async def serve(self, slot: str, spec: EngineSpec) -> None:
        """Make a proven engine serve, whatever the server serves now.

        Raises:
            ControlError: the engine does not load.
        """
        status = (await self.server_answers()).slots.get(slot)
        if _active(status) == spec.digest:
            return
        if _candidate(status) is not None:
            await self.server.abort(slot)
        await self.server.load(Load(slot=slot, spec=spec, timeout_s=self.tuning.load_timeout_s))
        await self.server.warm(SlotTimeout(slot=slot, timeout_s=self.tuning.warm_timeout_s))
        await self.server.swap(slot)
        await self.server.retire(Retire(slot=slot))

    async def settle(self, file: SlotFile, status: ServerStatus) -> None:
        """Make a healthy server serve what is committed, where it serves something else.

        That is left by an agent that ended between the two, or by a server that hung while its
        deployment was given up. A degraded slot is the server's own doing, and stays.

        Raises:
            ControlError: what is committed does not load.
        """
        now = status.slots.get(file.slot)
        if now is None or not now.ready or now.degraded:
            return
        if _active(now) not in {None, file.current.digest}:
            log.warning("engine.settled", slot=file.slot, release=file.current.release)
            await self.serve(file.slot, file.current)

    async def drop_candidate(self, slot: str, status: ServerStatus) -> None:
        """Close a candidate that no running deployment knows of."""
        digest = _candidate(status.slots.get(slot))
        if digest is not None:
            log.info("engine.candidate_dropped", slot=slot, digest=digest)
            await self.server.abort(slot)

    async def load(self, run: Run) -> Event:
        """Start the candidates; check what the workers say they loaded."""
        before, after, took_s = 0, 0, 0.0
        for plan in run.plans:
            status = await self.server.status()
            before += _rss(status.slots.get(plan.slot))
            loaded = await self.server.load(
                Load(slot=plan.slot, spec=plan.spec, timeout_s=self.tuning.load_timeout_s)
            )
            if loaded.digest != plan.spec.digest:
                detail = f"the worker loaded {loaded.digest[:12]}, not {plan.spec.digest[:12]}"
                raise ControlError(ReasonCode.DIGEST_MISMATCH, detail)
            took_s += loaded.load_s
            after += loaded.rss_bytes
        run.measured(load_s=took_s, rss_before_bytes=before, rss_peak_bytes=before + after)
        return Event.LOADED

    async def warm(self, run: Run) -> Event:
        """Run the candidates until their latency settles."""
        took_s = 0.0
        for plan in run.plans:
            args = SlotTimeout(slot=plan.slot, timeout_s=self.tuning.warm_timeout_s)
            took_s += (await self.server.warm(args)).warm_s
        run.measured(warm_s=took_s)
        return Event.WARMED

    async def prove(self, run: Run) -> Event:
        """Run the golden sets and the latency gates."""
        for plan in run.plans:
            result = await self.server.golden(
                RunGolden(
                    slot=plan.slot,
                    path=str(self.store.path(plan.golden.digest)),
                    golden=plan.golden,
                    min_samples=plan.gates.min_samples,
                    timeout_s=self.tuning.golden_timeout_s,
                )
            )
            run.measured(
                golden_score=result.score,
                golden_samples=result.samples,
                candidate_p50_ms=result.candidate_p50_ms,
                candidate_p99_ms=result.candidate_p99_ms,
                active_p50_ms=result.active_p50_ms,
                active_p99_ms=result.active_p99_ms,
            )
            failure = judge_golden(plan.gates, plan.golden, result)
            if failure is not None:
                raise AgentError(failure.code, failure.detail, slot=plan.slot)
        return Event.AGREED

    async def swap(self, run: Run) -> Event:
        """Let the candidates serve."""
        for plan in run.plans:
            swapped = await self.server.swap(plan.slot)
            run.measured(flip_us=swapped.flip_us)
            log.info("engine.swapped", slot=plan.slot, release=plan.release)
        return Event.SWAPPED

    async def retire(self, run: Run) -> Event:
        """Close the old engines. The slot files are written: nothing here can fail the commit."""
        drain_ms, dropped = 0.0, 0
        for plan in run.plans:
            try:
                async with asyncio.timeout(plan.drain_timeout_s + RETIRE_MARGIN_S):
                    # After a power cut in this phase the server may serve the old engine still.
                    await self.serve(plan.slot, plan.spec)
                    if (await self.server.status()).slots[plan.slot].previous is None:
                        continue
                    args = Retire(slot=plan.slot, drain_timeout_s=plan.drain_timeout_s)
                    retired = await self.server.retire(args)
            except (ControlError, KeyError, TimeoutError) as error:
                log.warning("engine.retire_failed", slot=plan.slot, reason=repr(error))
            else:
                drain_ms = max(drain_ms, retired.drain_ms)
                dropped += retired.dropped
        run.measured(drain_ms=drain_ms, dropped=dropped)
        return Event.COMMITTED

    async def abort(self, run: Run) -> None:
        """Close the candidates; what serves is untouched."""
        for plan in run.plans:
            try:
                await self.server.abort(plan.slot)
            except ControlError as error:
                # A candidate that is left over is closed at the next start of either process.
                log.warning("engine.abort_failed", slot=plan.slot, reason=str(error))

    async def restore(self, run: Run) -> Event:
        """Serve what was committed before, from memory if it is still warm."""
        failed: OSError | None = None
        for plan in run.plans:
            try:
                self._restore_file(plan)
            except OSError as error:
                failed = error  # serving comes first: a rollback needs no free disk
        for plan in run.plans:
            await self._restore_slot(run, plan)
        if failed is not None:
            raise failed
        return Event.RESTORED

    def _restore_file(self, plan: SlotPlan) -> None:
        now = self.slots.read(plan.slot)
        if now is None or now.current.digest != plan.spec.digest:
            return
        restored = restored_slot(plan, now)
        if restored is None:
            self.slots.remove(plan.slot)
        else:
            self.slots.replace(restored)

    async def _restore_slot(self, run: Run, plan: SlotPlan) -> None:
        while True:
            status = (await self.answer_for(run)).slots.get(plan.slot)
            if status is None or _active(status) != plan.spec.digest:
                if status is not None and _candidate(status) is not None:
                    await self.server.abort(plan.slot)
                return
            try:
                await self.server.restore(plan.slot)
            except ControlError as error:
                log.warning("engine.restore_failed", slot=plan.slot, reason=str(error))
                await asyncio.sleep(self.tuning.poll_s)


def _active(status: SlotStatus | None) -> str | None:
    return status.active.digest if status and status.active else None


def _candidate(status: SlotStatus | None) -> str | None:
    return status.candidate.digest if status and status.candidate else None


def _rss(status: SlotStatus | None) -> int:
    return status.active.rss_bytes if status and status.active else 0
