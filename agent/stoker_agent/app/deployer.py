"""Drives deployments through the table: persist, then act, and exactly one final status each."""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from stoker_agent.app.effects import Effects
from stoker_agent.app.pending import Pending
from stoker_agent.app.reporter import Reporter
from stoker_agent.app.run import POLICY_PHASES, Run, Tuning
from stoker_agent.clock import timestamp
from stoker_agent.core.deployment import SUPERSEDABLE, TRANSITIONS, Effect, Event, advance
from stoker_agent.core.ports import DesiredVerifier, VerifiedDesired
from stoker_agent.core.record import Intent, Progress, Record
from stoker_agent.core.report import Cause, with_cause
from stoker_agent.errors import AgentError, JournalError, TrustError
from stoker_agent.state.journal import Journal
from stoker_agent.state.reserve import is_disk_full
from stoker_contract.codes import REASON_CLASS, Outcome, ReasonClass, ReasonCode
from stoker_contract.engine import SlotFile
from stoker_contract.status import Phase

log: Final = structlog.get_logger("stoker.deployer")

TIDY_S: Final = 2.0

# What an artifact did by itself, on this device; a failure that may be the device's is not here.
BAD_BEFORE_SWAP: Final = frozenset({ReasonCode.UNSAFE_MODEL, ReasonCode.GOLDEN_FAIL})


@dataclass(slots=True)
class Deployer:
    """Owns the running deployment.

    Attributes:
        on_change: called after every durable change, so that the state is reported again.
        stopped_in_order: how the last life of the agent ended.
    """

    journal: Journal
    effects: Effects
    verifier: DesiredVerifier
    reporter: Reporter
    tuning: Tuning
    on_change: Callable[[], None]
    rng: random.Random = field(default_factory=random.Random)
    stopped_in_order: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _fresh: set[int] = field(default_factory=set)
    _pending: Pending = field(default_factory=Pending)
    _verifying: asyncio.Lock = field(default_factory=asyncio.Lock)
    _run: Run | None = None
    _rollback_wanted: bool = False
    _untidy: bool = True

    async def on_desired(self, payload: bytes) -> None:
        """Take a desired state from the cloud; when this returns, it needs no second delivery.

        Raises:
            JournalError: nothing could be read; it has to come again.
        """
        async with self._verifying:
            digest = hashlib.sha256(payload).hexdigest()
            if self.journal.knows(digest) or self.journal.was_refused(digest):
                log.info("desired.known", sha256=digest[:12])
                self.on_change()
                return
            try:
                await self._take(payload, digest)
            except TrustError as error:
                log.warning("desired.refused", code=error.code, detail=error.detail, final=False)
                since = timestamp(self.reporter.clock.unix_s())
                self._pending.keep(payload, digest, error, since)
            else:
                self._pending.forget(digest)
            self._tell_refusals()

    async def _take(self, payload: bytes, digest: str) -> None:
        """Accept a document or refuse it for good.

        Raises:
            TrustError: neither now; it is not final.
        """
        try:
            verified = await self.verifier.verify(payload)
        except TrustError as error:
            if not error.final:
                raise
            with _not_final(error.generation, error.deployment_id):
                self._refuse(error, digest)
        else:
            with _not_final(verified.generation, verified.desired.deployment_id):
                self._accept(verified)
            self._pending.forget_up_to(verified.generation)

    def _tell_refusals(self) -> None:
        refusals = self._pending.refusals()
        if refusals != self.reporter.refusals:
            self.reporter.refusals = refusals
            self.on_change()

    def pause(self, *, paused: bool) -> None:
        """Begin nothing new, by the wish of the cloud."""
        if paused:
            self.effects.allowed.clear()
        else:
            self.effects.allowed.set()

    def kick(self) -> None:
        """Look again at what may interrupt the running deployment."""
        self._wake.set()
        if self._run is not None:
            self._run.kick.set()

    def server_changed(self) -> None:
        """The server says something new: it may serve what no deployment of ours has left there."""
        self._untidy = True
        self.kick()

    def want_rollback(self) -> None:
        """Go back to the previous engine, by the wish of a person on the device."""
        self._rollback_wanted = True
        self.kick()

    async def run(self) -> None:
        """Work on deployments for ever, beginning with what a restart has left behind."""
        while True:
            try:
                await self._work_on_next()
            except (JournalError, OSError) as error:
                # The disk: a full or failing one is waited for, never a reason to end.
                log.error("deployer.disk", reason=str(error))  # noqa: TRY400 - the trace says nothing more
                await asyncio.sleep(self.tuning.poll_s)

    async def _work_on_next(self) -> None:
        self._wake.clear()
        unfinished = self.journal.unfinished()
        if unfinished:
            self._untidy = False  # each deployment closes what it finds
            for record in unfinished[1:-1]:
                await self._step(Run(record), Event.SUPERSEDED)
            await self._drive(unfinished[0])
            await self.effects.collect_garbage()
        elif self._untidy:
            self._untidy = False
            await self._tidy()
        elif self._rollback_wanted:
            self._rollback_wanted = False
            await self._roll_back_locally()
        else:
            await self._wake.wait()

    async def retry_verification(self) -> None:
        """Verify again what could not be verified yet, with growing pauses."""
        failures = 0
        while True:
            ceiling_s = min(self.tuning.retry_cap_s, self.tuning.retry_base_s * 2**failures)
            await asyncio.sleep(self.rng.uniform(ceiling_s / 2, ceiling_s))
            payloads = self._pending.payloads()
            if not payloads:
                failures = 0
                continue
            failures = min(failures + 1, 30)
            for payload in payloads:
                with contextlib.suppress(JournalError):  # it stays where it is
                    await self.on_desired(payload)

    def _refuse(self, error: TrustError, digest: str) -> None:
        log.warning("desired.refused", code=error.code, detail=error.detail, final=True)
        message = None
        if error.deployment_id is not None and error.generation is not None:
            # A replay must not end a deployment again that has its final status already.
            final = error.generation > self.journal.generation()[0]
            if final or error.code is not ReasonCode.STALE_GENERATION:
                message = self.reporter.refusal(
                    error.deployment_id, error.generation, error, final=final
                )
        self.journal.refuse(digest, message)
        self.on_change()

    def _accept(self, verified: VerifiedDesired) -> None:
        intent = Intent(
            generation=verified.generation,
            payload_sha256=verified.payload_sha256,
            desired=verified.desired,
            manifests=dict(verified.manifests),
            accepted=timestamp(self.reporter.clock.unix_s()),
        )
        progress, _ = advance(Progress(phase=Phase.IDLE), Event.DESIRED)
        record = Record(intent=intent, progress=progress)
        self.journal.accept(record, verified.floors, [self.reporter.message(record)])
        log.info("desired.accepted", generation=record.generation, id=record.deployment_id)
        self._fresh.add(record.generation)
        self.on_change()
        self.kick()

    async def _drive(self, record: Record) -> None:
        run = Run(record)
        self._run = run
        try:
            if record.generation in self._fresh:
                effects: tuple[Effect, ...] = (Effect.EVALUATE,)
            else:
                effects = await self._step(run, self._came_back(run))
            while run.record.progress.outcome is None:
                if Effect.RESTORE in effects and run.phase is Phase.STAGED:
                    await self._undo(run)
                if Effect.ABORT in effects:
                    await self.effects.perform(Effect.ABORT, run)
                event = await self._while_held(run) or await self._perform(run, effects)
                effects = await self._step(run, event)
            if Effect.ABORT in effects:
                await self.effects.perform(Effect.ABORT, run)
        finally:
            self._run = None

    async def _undo(self, run: Run) -> None:
        """Let what was committed serve before anything newer may end this deployment.

        Bounded: an old engine that can not be loaded must not keep newer generations away.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.tuning.deadlines_s[Phase.ROLLING_BACK]):
                while True:
                    try:
                        await self.effects.perform(Effect.RESTORE, run)
                    except (AgentError, OSError) as error:
                        log.warning("deployment.undo_again", reason=str(error))
                        await asyncio.sleep(self.tuning.poll_s)
                    else:
                        return

    async def _while_held(self, run: Run) -> Event | None:
        """Wait until updates are allowed; no deadline counts that. What ended it before, if so."""
        if (run.phase, Event.HELD) not in TRANSITIONS:
            return None
        while (event := self._interrupting(run)) is Event.HELD:
            await run.kick.wait()
            run.kick.clear()
        return event

    def _came_back(self, run: Run) -> Event:
        in_order, self.stopped_in_order = self.stopped_in_order, False
        if in_order and (run.phase, Event.RESUMED) in TRANSITIONS:
            return Event.RESUMED
        return Event.RESTARTED

    async def _step(self, run: Run, event: Event) -> tuple[Effect, ...]:
        """Move on, durably; what it led to has to be done next."""
        before = run.phase
        retry = run.record.intent.desired.policy.retry
        progress, effects = advance(run.record.progress, event, max_attempts=retry.max_attempts)
        if _gave_up(before, event, progress):
            on_probation = before is Phase.PROBATION
            code = ReasonCode.UNCLEAN_REBOOT if on_probation else ReasonCode.ATTEMPTS_EXHAUSTED
            detail = f"{event} while {before}, in attempt {progress.attempt}"
            progress = with_cause(progress, Cause(before, "agent", code, detail))
        run.update(progress)
        await self._remember(run, before)
        log.info(
            "deployment.step",
            generation=run.record.generation,
            before=before,
            after=event,
            phase=progress.phase,
            attempt=progress.attempt,
            outcome=progress.outcome,
            code=progress.code,
            detail=progress.detail,
        )
        self.on_change()
        return effects

    async def _remember(self, run: Run, before: Phase) -> None:
        """Make a step durable, however long the disk is full."""
        progress, undone = run.record.progress, False
        while True:
            try:
                message = self.reporter.message(
                    run.record, phase=before if progress.outcome else None
                )
                if progress.outcome is None:
                    self.journal.record(run.record, [message])
                else:
                    self.journal.finish(run.record, message, _bad_digests(progress))
            except JournalError as error:
                log.error("deployment.not_remembered", code=error.code, detail=error.detail)  # noqa: TRY400 - the trace says nothing more
            else:
                return
            if run.phase is Phase.ROLLING_BACK and not undone:
                # A rollback needs no free disk; a restart that has forgotten it does it as well.
                undone = True
                await self._undo(run)
            await asyncio.sleep(self.tuning.poll_s)

    async def _perform(self, run: Run, effects: tuple[Effect, ...]) -> Event:
        """Run effects until they end, are interrupted, or are too late."""
        work = asyncio.create_task(self._work(run, effects), name=f"deployment.{run.phase}")
        watch = asyncio.create_task(self._interruption(run), name="deployment.interruption")
        tasks = {work, watch}
        try:
            done, _ = await asyncio.wait(
                tasks, timeout=self._deadline_s(run), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            work.cancel()
            watch.cancel()
            await asyncio.wait(tasks)
        if work in done:
            return work.result()
        if watch in done:
            return watch.result()
        code = run.waits_for or ReasonCode.PHASE_DEADLINE
        run.cause("agent", code, f"{run.phase} took too long")
        return Event.DEADLINE

    async def _work(self, run: Run, effects: tuple[Effect, ...]) -> Event:
        while True:
            event = None
            try:
                for effect in effects:
                    event = await self.effects.perform(effect, run)
            except AgentError as error:
                event = await self._failed(run, error)
            except Exception as error:
                # The boundary: a bug or a full disk fails one deployment, never the agent.
                log.exception("deployment.error", phase=run.phase)
                code = ReasonCode.DISK_SPACE if is_disk_full(error) else ReasonCode.INTERNAL
                event = await self._failed(run, AgentError(code, f"{run.phase}: {error!r}"))
            if event is not None and (run.phase, event) in TRANSITIONS:
                return event
            log.warning("deployment.repeat", phase=run.phase, after=event)
            await asyncio.sleep(self.tuning.poll_s)

    async def _failed(self, run: Run, error: AgentError) -> Event:
        if (run.phase, Event.SERVER_LOST) in TRANSITIONS and await self._server_lost(run, error):
            return Event.SERVER_LOST
        run.cause(type(error).__name__, error.code, error.detail, error.slot)
        return Event.DEADLINE if error.code is ReasonCode.PHASE_DEADLINE else Event.FAILED

    async def _server_lost(self, run: Run, error: AgentError) -> bool:
        """Whether it failed only because the server that held the candidate is gone."""
        if error.code is ReasonCode.SERVER_UNAVAILABLE:
            return True
        try:
            status = await self.effects.engines.server.status()
        except AgentError:
            return True
        return status.server_id != run.server_id

    async def _interruption(self, run: Run) -> Event:
        while True:
            event = None
            with contextlib.suppress(JournalError):  # what it says is looked at with the next kick
                event = self._interrupting(run)
            if event is not None:
                return event
            await run.kick.wait()
            run.kick.clear()

    def _interrupting(self, run: Run) -> Event | None:
        phase = run.phase
        newer = self.journal.generation()[0]
        if phase in SUPERSEDABLE and newer > run.record.generation:
            return Event.SUPERSEDED
        if self._rollback_wanted and (phase, Event.CANCELED) in TRANSITIONS:
            self._rollback_wanted = False
            run.cause("local", ReasonCode.HELD, "rolled back by `stoker-agent rollback`")
            return Event.CANCELED
        if (phase, Event.HELD) in TRANSITIONS and self.journal.held():
            return Event.HELD
        return None

    def _deadline_s(self, run: Run) -> float | None:
        if run.phase in POLICY_PHASES:
            return run.record.intent.desired.policy.deadline_s
        one_slot_s = self.tuning.deadlines_s.get(run.phase)
        return None if one_slot_s is None else one_slot_s * max(len(run.plans), 1)

    async def _tidy(self) -> None:
        """Let the server serve what is committed and nothing else; if it answers at all."""
        self.reporter.slots.mend()
        engines = self.effects.engines
        try:
            async with asyncio.timeout(TIDY_S):
                status = await engines.server.status()
                for slot in status.slots:
                    await engines.drop_candidate(slot, status)
            for file in self.reporter.slots.read_all().values():
                await engines.settle(file, status)
        except (AgentError, TimeoutError) as error:
            # A server that hangs must not hold up what needs no server, a download for instance.
            log.info("server.not_there_yet", reason=repr(error))
        await self.effects.collect_garbage()

    async def _roll_back_locally(self) -> None:
        for slot, file in self.reporter.slots.read_all().items():
            if file.previous is None:
                log.warning("rollback.nothing_before", slot=slot)
                continue
            try:
                await self.effects.engines.serve(slot, file.previous)
            except AgentError as error:
                log.error("rollback.failed", slot=slot, code=error.code, detail=error.detail)  # noqa: TRY400 - the trace says nothing more
                continue
            back = {"current": file.previous, "previous": file.current}
            await self._commit_rollback(file.model_copy(update=back))
            log.info("rollback.done", slot=slot, release=file.previous.release)
        self.on_change()

    async def _commit_rollback(self, file: SlotFile) -> None:
        """Make it the truth of the next boot, however long the disk is full."""
        while True:
            try:
                self.reporter.slots.replace(file)
            except OSError as error:
                log.error("rollback.not_durable", slot=file.slot, reason=str(error))  # noqa: TRY400 - the trace says nothing more
                await asyncio.sleep(self.tuning.poll_s)
            else:
                return


@contextlib.contextmanager
def _not_final(generation: int | None, deployment_id: str | None) -> Iterator[None]:
    """What can not be written now is tried again, as what can not be verified now is."""
    try:
        yield
    except JournalError as error:
        raise TrustError(
            error.code,
            error.detail,
            final=False,
            generation=generation,
            deployment_id=deployment_id,
        ) from error


def _gave_up(before: Phase, event: Event, after: Progress) -> bool:
    rolling_back = after.phase is Phase.ROLLING_BACK and before is not Phase.ROLLING_BACK
    return event in {Event.RESTARTED, Event.SERVER_LOST} and (
        after.outcome is not None or rolling_back
    )


def _bad_digests(progress: Progress) -> dict[str, ReasonCode]:
    """Artifacts that are never to be started here again without force."""
    code = progress.code
    if code is None:
        return {}
    served = progress.outcome in {Outcome.ROLLED_BACK, Outcome.ROLLBACK_FAILED}
    if not (served and REASON_CLASS[code] is ReasonClass.PERMANENT) and code not in BAD_BEFORE_SWAP:
        return {}
    plans = [plan for plan in progress.plans if progress.slot in {None, plan.slot}]
    return {plan.spec.digest: code for plan in plans}
