"""What each effect of the table does to the world. Every one of them can be repeated."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from stoker_agent.app.engine_effects import EngineEffects
from stoker_agent.app.probation import ProbationWatch
from stoker_agent.app.reporter import Host, Reporter
from stoker_agent.app.run import Run, Tuning
from stoker_agent.artifacts.download import Downloader, Transfer
from stoker_agent.artifacts.verify import verify_and_publish
from stoker_agent.core.deployment import Effect, Event
from stoker_agent.core.plan import Rejected, Situation, committed_slot, make_plan
from stoker_agent.core.record import SlotPlan
from stoker_agent.errors import ArtifactError, JournalError
from stoker_agent.state.journal import Journal
from stoker_agent.state.slots import SlotFiles
from stoker_agent.state.store import BlobStore
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import FileRef
from stoker_contract.target import why_incompatible

SHOWN_STEP: Final = 0.05

log: Final = structlog.get_logger("stoker.deployer")
Step = Callable[[Run], Awaitable[Event | None]]


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Effects:
    """Runs effects against the disk, the repository and the server.

    Attributes:
        allowed: cleared while the cloud asks the whole fleet to begin nothing new.
    """

    journal: Journal
    slots: SlotFiles
    store: BlobStore
    downloader: Downloader
    engines: EngineEffects
    probation: ProbationWatch
    host: Host
    tuning: Tuning
    reporter: Reporter
    on_change: Callable[[], None]
    allowed: asyncio.Event = field(default_factory=_set_event)

    async def perform(self, effect: Effect, run: Run) -> Event | None:
        """Run one effect; the event it led to, if it is the one that decides.

        Raises:
            AgentError: it failed.
        """
        steps: Mapping[Effect, Step] = {
            Effect.EVALUATE: self._evaluate,
            Effect.DOWNLOAD: self._download,
            Effect.VERIFY: self._verify,
            Effect.AWAIT_ACTIVATION: self._await_activation,
            Effect.PREFLIGHT: self._preflight,
            Effect.LOAD: self.engines.load,
            Effect.WARM: self.engines.warm,
            Effect.PROVE: self.engines.prove,
            Effect.SWAP: self.engines.swap,
            Effect.OBSERVE: self.probation.observe,
            Effect.COMMIT: self._commit,
            Effect.RETIRE: self.engines.retire,
            Effect.ABORT: self.engines.abort,
            Effect.RESTORE: self.engines.restore,
        }
        return await steps[effect](run)

    async def collect_garbage(self) -> None:
        """Remove blobs that nothing names any more."""
        if self.slots.unreadable():  # the server may still salvage what such a file names
            log.warning("store.not_collected")
            return
        keep = set(_named_by_slots(self.slots))
        for record in self.journal.unfinished():
            keep |= {file.digest for file in record.intent.desired.files().values()}
        gone = await asyncio.to_thread(self.store.collect_garbage, keep)
        if gone:
            log.info("store.collected", blobs=len(gone))

    async def _evaluate(self, run: Run) -> Event:
        situation = Situation(
            profile=self.host.profile,
            bad_digests=self.journal.bad_digests(),
            committed=self.slots.read_all(),
            blob_path=lambda digest: str(self.store.path(digest)),
        )
        plan = make_plan(run.record.intent, situation)
        if isinstance(plan, Rejected):
            run.cause("plan", plan.code, plan.detail)
            return Event.REJECTED
        run.planned(plan)
        return Event.PLANNED if plan else Event.SATISFIED

    async def _download(self, run: Run) -> Event:
        policy = run.record.intent.desired.policy
        files = list(_plan_files(run.plans))
        self.downloader.check_disk(files, lambda _path: self.host.disk().free_bytes)
        transfer = Transfer(
            stop=threading.Event(),
            deadline_s=time.monotonic() + policy.deadline_s,
            max_bytes_per_s=policy.max_bytes_per_s,
        )
        missing = sum(self.store.missing_bytes(file.digest, file.length) for file in files)
        telling = asyncio.create_task(
            self._tell_progress(run, transfer, missing), name="deployment.progress"
        )
        try:
            await _in_thread(transfer.stop, lambda: self._fetch_all(files, transfer))
        finally:
            telling.cancel()
            await asyncio.wait([telling])
        run.measured(
            download_s=time.monotonic() - transfer.started_s,
            downloaded_bytes=transfer.received_bytes,
        )
        return Event.DOWNLOADED

    async def _tell_progress(self, run: Run, transfer: Transfer, missing: int) -> None:
        """Say how far a long download is: often enough to watch, rarely enough to be cheap."""
        told = 0.0
        while True:
            await asyncio.sleep(self.tuning.progress_s)
            done = min(transfer.received_bytes / max(missing, 1), 1.0)
            if done - told >= SHOWN_STEP:
                told = done
                with suppress(JournalError):  # a full disk costs this line, not the download
                    message = self.reporter.message(run.record, done=done)
                    self.journal.enqueue(message.topic, message.payload, message.kind)
                self.on_change()

    def _fetch_all(self, files: list[FileRef], transfer: Transfer) -> None:
        for file in files:
            self.downloader.fetch(file, transfer)

    async def _verify(self, run: Run) -> Event:
        for plan in run.plans:
            await asyncio.to_thread(verify_and_publish, plan, self.store)
        return Event.VERIFIED

    async def _await_activation(self, run: Run) -> Event:
        await self.allowed.wait()
        status = await self.engines.answer_for(run)
        for plan in run.plans:
            await self.engines.drop_candidate(plan.slot, status)
        run.held_by(status.server_id)
        return Event.ACTIVATED

    async def _preflight(self, run: Run) -> Event:
        for plan in run.plans:
            if not self.store.path(plan.spec.digest).exists():
                detail = f"{plan.artifact.path} is gone from the store: publish a new generation"
                raise ArtifactError(ReasonCode.DIGEST_MISMATCH, detail)
        self._check_profile(run)
        needed = sum(plan.spec.footprint.load_peak_bytes for plan in run.plans)
        free = self.host.memory().free_bytes
        if needed and free < needed + self.tuning.memory_margin_bytes:
            detail = (
                f"loading takes {needed} bytes beside what runs, {free} are free with a margin of"
                f" {self.tuning.memory_margin_bytes}: free memory or build a smaller artifact"
            )
            raise ArtifactError(ReasonCode.MEMORY, detail)
        return Event.CHECKED

    def _check_profile(self, run: Run) -> None:
        for plan in run.plans:
            manifest = run.record.intent.manifests[plan.slot]
            artifact = next(a for a in manifest.artifacts if a.digest == plan.spec.digest)
            why_not = why_incompatible(
                artifact.target, artifact.kind, self.host.profile, artifact.session.runtime
            )
            if why_not is not None:
                raise ArtifactError(ReasonCode.INCOMPATIBLE_TARGET, why_not)

    async def _commit(self, run: Run) -> None:
        for plan in run.plans:
            self.slots.replace(committed_slot(plan, self.slots.read(plan.slot), run.record.intent))
            self.journal.bless(plan.spec.digest)
            log.info("engine.committed", slot=plan.slot, release=plan.release)


async def _in_thread(stop: threading.Event, work: Callable[[], None]) -> None:
    """Run blocking work, and do not return before it has really ended."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        raise


def _plan_files(plans: Iterable[SlotPlan]) -> Iterable[FileRef]:
    for plan in plans:
        yield plan.artifact
        yield plan.golden_file
        if plan.fallback is not None:
            yield plan.fallback.file


def _named_by_slots(slots: SlotFiles) -> Iterable[str]:
    for file in slots.read_all().values():
        for spec in (file.current, file.previous, file.fallback):
            if spec is not None:
                yield spec.digest
