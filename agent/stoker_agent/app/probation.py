"""Watches live traffic after the swap until there is a verdict."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from stoker_agent.app.engine_effects import EngineEffects
from stoker_agent.app.run import Run, Tuning
from stoker_agent.clock import Clock
from stoker_agent.core.deployment import Event
from stoker_agent.core.gates import Failure, Passed, judge_probation
from stoker_agent.core.ports import ServerControl
from stoker_agent.errors import AgentError, ControlError
from stoker_contract.codes import ReasonCode
from stoker_contract.control import Observed
from stoker_contract.histogram import quantile_ms

P99 = 0.99
POLLS_PER_PROBATION = 10
SHORTEST_POLL_S = 0.02


@dataclass(slots=True)
class ProbationWatch:
    """Polls the server. Time runs from the first answer, on the monotonic clock."""

    engines: EngineEffects
    server: ServerControl
    clock: Clock
    tuning: Tuning

    async def observe(self, run: Run) -> Event:
        """Wait for the verdict.

        Raises:
            AgentError: an engine failed its probation.
            ControlError: the server restarted, or is gone for too long.
        """
        started_s: float | None = None
        while True:
            seen = await self._observe_once(run)
            now_s = self.clock.monotonic_s()
            if seen is not None:
                started_s = now_s if started_s is None else started_s
                if self._judge(run, seen, now_s - started_s):
                    return Event.PROVED
            await asyncio.sleep(self._poll_s(run))

    def _judge(self, run: Run, seen: list[Observed], elapsed_s: float) -> bool:
        verdicts = [
            judge_probation(plan.probation, plan.spec.digest, observed, elapsed_s)
            for plan, observed in zip(run.plans, seen, strict=True)
        ]
        for plan, verdict in zip(run.plans, verdicts, strict=True):
            if isinstance(verdict, Failure):
                _measure_traffic(run, seen)
                raise AgentError(verdict.code, verdict.detail, slot=plan.slot)
        passed = [verdict for verdict in verdicts if isinstance(verdict, Passed)]
        if len(passed) < len(verdicts):
            return False
        _measure_traffic(run, seen)
        low = any(verdict.confidence == "low" for verdict in passed)
        run.measured(confidence="low" if low else "high")
        return True

    async def _observe_once(self, run: Run) -> list[Observed] | None:
        try:
            return [await self.server.observe(plan.slot) for plan in run.plans]
        except ControlError as error:
            if error.code is not ReasonCode.SERVER_UNAVAILABLE:
                raise
            # A lost connection is no evidence against an engine; a new server process is news,
            # and so is one that stays silent: what it would say of this engine is lost with it.
            with suppress(TimeoutError):
                async with asyncio.timeout(self.tuning.server_lost_s):
                    if (await self.engines.server_answers()).server_id == run.server_id:
                        return None
            raise

    def _poll_s(self, run: Run) -> float:
        shortest_s = min(plan.probation.duration_s for plan in run.plans)
        return max(min(self.tuning.poll_s, shortest_s / POLLS_PER_PROBATION), SHORTEST_POLL_S)


def _measure_traffic(run: Run, seen: list[Observed]) -> None:
    p99s_before = [quantile_ms(observed.before, P99) for observed in seen]
    p99s_after = [quantile_ms(observed.total, P99) for observed in seen]
    run.measured(
        requests=sum(observed.requests for observed in seen),
        errors=sum(observed.errors for observed in seen),
        p99_before_ms=max((p for p in p99s_before if p is not None), default=None),
        p99_after_ms=max((p for p in p99s_after if p is not None), default=None),
        rss_after_bytes=sum(observed.rss_bytes for observed in seen) or None,
    )
