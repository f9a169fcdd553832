"""Builds what the agent says about itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from stoker_agent.core.record import Progress, Record
from stoker_agent.errors import MAX_DETAIL_CHARACTERS
from stoker_contract.codes import ReasonCode
from stoker_contract.control import ServerStatus, SlotStatus
from stoker_contract.engine import SlotFile
from stoker_contract.reported import Capacity, Ended, Refusal, Reported, ReportedSlot
from stoker_contract.status import Measured, Phase, StatusEvent
from stoker_contract.target import Profile


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who says something, in which order, and when."""

    device: str
    fleet: str
    epoch: int
    seq: int
    time: str
    time_trusted: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The machine at this moment."""

    profile: Profile
    disk: Capacity
    memory: Capacity


def status_event(
    record: Record, stamp: Stamp, *, phase: Phase | None = None, done: float | None = None
) -> StatusEvent:
    """The event that tells where a deployment is; final once it has an outcome.

    Args:
        record: the deployment, already moved on.
        stamp: who and when.
        phase: where it was when it ended, for a final event.
        done: the share of the phase that is done, if that can be told.
    """
    progress = record.progress
    slots = list(record.intent.desired.slots)
    return StatusEvent(
        device=stamp.device,
        deployment_id=record.deployment_id,
        generation=record.generation,
        attempt=progress.attempt,
        epoch=stamp.epoch,
        seq=stamp.seq,
        slot=slots[0] if len(slots) == 1 else None,
        phase=phase or progress.phase,
        final=progress.outcome is not None,
        outcome=progress.outcome,
        progress=done,
        code=progress.code,
        stack=progress.stack,
        detail=progress.detail,
        time=stamp.time,
        time_trusted=stamp.time_trusted,
        measured=progress.measured,
    )


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a deployment failed: where, what, and a sentence for people."""

    phase: Phase
    component: str
    code: ReasonCode
    detail: str
    slot: str | None = None

    @property
    def stack(self) -> tuple[str, ...]:
        """Phase > component > element > code."""
        element = () if self.slot is None else (self.slot,)
        return (str(self.phase), self.component, *element, str(self.code))


def with_cause(progress: Progress, cause: Cause) -> Progress:
    """Note why a deployment failed. The first cause stays: what follows is its consequence."""
    if progress.code is not None:
        return progress
    return progress.model_copy(
        update={
            "code": cause.code,
            "detail": cause.detail[:MAX_DETAIL_CHARACTERS],
            "stack": cause.stack,
            "slot": cause.slot,
        }
    )


def with_measured(progress: Progress, **figures: float | str | None) -> Progress:
    """Add figures that were measured."""
    values = progress.measured.model_dump() | figures
    return progress.model_copy(update={"measured": Measured(**values)})


def reported(  # noqa: PLR0913 - one argument for each part of the document
    stamp: Stamp,
    figures: Figures,
    *,
    generation: int,
    running: Record | None,
    ended: Record | None,
    slots: Mapping[str, SlotFile],
    server: ServerStatus | None,
    bad_digests: tuple[str, ...],
    held: bool,
    refusals: tuple[Refusal, ...],
    outbox_depth: int,
) -> Reported:
    """The full actual state of the device."""
    record = running or ended
    names = sorted({*slots, *(server.slots if server else {})})
    return Reported(
        device=stamp.device,
        fleet=stamp.fleet,
        epoch=stamp.epoch,
        seq=stamp.seq,
        observed_generation=generation,
        deployment_id=record.deployment_id if record else None,
        phase=running.progress.phase if running else Phase.IDLE,
        last=_ended(ended),
        slots={
            name: _slot(slots.get(name), server.slots.get(name) if server else None, server)
            for name in names
        },
        bad_digests=bad_digests,
        held=held,
        refusals=refusals,
        profile=figures.profile,
        disk=figures.disk,
        memory=figures.memory,
        time=stamp.time,
        time_trusted=stamp.time_trusted,
        outbox_depth=outbox_depth,
    )


def _ended(record: Record | None) -> Ended | None:
    if record is None or record.progress.outcome is None:
        return None
    return Ended(
        deployment_id=record.deployment_id,
        generation=record.generation,
        outcome=record.progress.outcome,
        code=record.progress.code,
        detail=record.progress.detail,
    )


def _slot(
    file: SlotFile | None, status: SlotStatus | None, server: ServerStatus | None
) -> ReportedSlot:
    previous = file.previous if file else None
    committed = file.current.release if file else None
    if status is None:
        # Only a worker can say what is active; without one the slot file is only an intention.
        return ReportedSlot(
            committed_release=committed,
            previous=previous.digest if previous else None,
            previous_release=previous.release if previous else None,
            degraded=True,
            reason=ReasonCode.NO_ENGINE if server else ReasonCode.SERVER_UNAVAILABLE,
            detail="" if server else "the inference server does not answer",
        )
    return ReportedSlot(
        active=status.active.digest if status.active else None,
        release=status.active.release if status.active else None,
        committed_release=committed,
        previous=previous.digest if previous else None,
        previous_release=previous.release if previous else None,
        staged=status.candidate.digest if status.candidate else None,
        ready=status.ready,
        degraded=status.degraded,
        reason=status.reason,
        detail=status.detail,
    )
