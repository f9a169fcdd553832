"""Rollouts, the desired states that were signed for them, and how far each device is."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.desired import Desired
from stoker_contract.status import Measured, Phase
from stoker_fleet.core.assignment import Issued, RolloutPlan
from stoker_fleet.core.rollout import GOOD, DeviceProgress, RolloutState, state_of
from stoker_fleet.errors import FleetError
from stoker_fleet.store.schema import DesiredRow, Device, Rollout, RolloutDevice


@dataclass(frozen=True)
class RolloutRequest:
    """What a rollout is made of."""

    release: str
    slot: str
    selector: str
    plan: RolloutPlan
    devices: tuple[str, ...]


@dataclass(frozen=True)
class RolloutView:
    """A rollout as it is now."""

    rollout_id: str
    release: str
    slot: str
    selector: str
    plan: RolloutPlan
    state: RolloutState
    created_at: str
    finished_at: str | None
    devices: tuple[DeviceProgress, ...]
    measured: Mapping[str, Measured]

    @property
    def standing(self) -> RolloutState:
        """As its devices are, until it is over: what became of them later changes nothing."""
        return state_of(self.devices) if self.state is RolloutState.RUNNING else self.state


@dataclass(frozen=True)
class Document:
    """A signed desired state, ready to be published."""

    device: str
    generation: int
    signed: bytes


@dataclass(frozen=True)
class Wanted:
    """The newest desired state of a device, and the generation it was signed with."""

    generation: int
    desired: Desired
    outcome: Outcome | None


@dataclass(frozen=True)
class Deployment:
    """One desired state of one device, and what became of it."""

    generation: int
    rollout_id: str
    release: str
    slot: str
    issued_at: str
    published_at: str | None
    phase: Phase | None
    outcome: Outcome | None
    code: ReasonCode | None
    detail: str
    measured: Measured


def create(session: Session, request: RolloutRequest, now: datetime) -> str:
    """Write a rollout down; the controller picks it up. Returns its id."""
    # The random part keeps ids apart when a store was lost: devices remember deployment ids.
    token = secrets.token_hex(3)
    row = Rollout(
        rollout_id=token,
        release=request.release,
        slot=request.slot,
        selector=request.selector,
        plan=request.plan.encode().decode(),
        state=RolloutState.RUNNING,
        created_at=now.isoformat(),
    )
    session.add(row)
    session.flush()
    row.rollout_id = f"r{row.number}-{token}"
    session.flush()
    devices = (RolloutDevice(rollout_id=row.rollout_id, device=d) for d in request.devices)
    session.add_all(devices)
    return row.rollout_id


def running(session: Session) -> tuple[str, ...]:
    """The rollouts that are not over, oldest first."""
    query = select(Rollout.rollout_id).where(Rollout.state == RolloutState.RUNNING)
    return tuple(session.scalars(query.order_by(Rollout.number)))


def recent(session: Session, limit: int = 50) -> tuple[RolloutView, ...]:
    """The last rollouts, newest first."""
    query = select(Rollout.rollout_id).order_by(Rollout.number.desc()).limit(limit)
    return tuple(view(session, rollout_id) for rollout_id in session.scalars(query))


def view(session: Session, rollout_id: str | None) -> RolloutView:
    """A rollout as it is now; None is the last one.

    Raises:
        FleetError: ``BAD_REQUEST``, there is none.
    """
    query = select(Rollout).order_by(Rollout.number.desc())
    if rollout_id is not None:
        query = query.where(Rollout.rollout_id == rollout_id)
    row = session.scalars(query.limit(1)).first()
    if row is None:
        detail = f"there is no rollout {rollout_id}" if rollout_id else "there is no rollout yet"
        hint = "`stoker rollout list` shows them; `stoker rollout create` makes one."
        raise FleetError(ReasonCode.BAD_REQUEST, detail, hint=hint)
    joined = (
        select(RolloutDevice, Device, DesiredRow)
        .outerjoin(Device, Device.device == RolloutDevice.device)
        .outerjoin(
            DesiredRow,
            (DesiredRow.device == RolloutDevice.device)
            & (DesiredRow.generation == RolloutDevice.generation),
        )
        .where(RolloutDevice.rollout_id == row.rollout_id)
        .order_by(RolloutDevice.device)
    )
    # What an outer join does not find is None, which the types of the query do not say.
    rows: list[tuple[RolloutDevice, Device | None, DesiredRow | None]] = [
        (target, device, desired) for target, device, desired in session.execute(joined)
    ]
    return RolloutView(
        rollout_id=row.rollout_id,
        release=row.release,
        slot=row.slot,
        selector=row.selector,
        plan=RolloutPlan.parse(row.plan.encode()),
        state=RolloutState(row.state),
        created_at=row.created_at,
        finished_at=row.finished_at,
        devices=tuple(_progress(target, device, desired) for target, device, desired in rows),
        measured=_measured(desired for _, _, desired in rows),
    )


def unassigned(session: Session, rollout_id: str) -> tuple[str, ...]:
    """The targeted devices that the controller has not decided about."""
    query = select(RolloutDevice.device).where(
        RolloutDevice.rollout_id == rollout_id,
        RolloutDevice.generation.is_(None),
        RolloutDevice.skipped.is_(None),
    )
    return tuple(session.scalars(query.order_by(RolloutDevice.device)))


def skip(session: Session, rollout_id: str, device: str, code: ReasonCode, detail: str) -> None:
    """Leave a device out of a rollout, for a reason."""
    row = session.get_one(RolloutDevice, (rollout_id, device))
    row.skipped, row.detail = code, detail


def record(
    session: Session, desired: Desired, document: Document, now: datetime, *, counts: bool = True
) -> None:
    """Write a signed desired state down, before it is published.

    With ``counts`` what becomes of it is what becomes of the device in its rollout.
    """
    session.add(
        DesiredRow(
            device=document.device,
            generation=document.generation,
            deployment_id=desired.deployment_id,
            desired=desired.encode().decode(),
            signed=document.signed,
            issued_at=now.isoformat(),
        )
    )
    row = session.get(RolloutDevice, (desired.deployment_id, document.device))
    if counts and row is not None:  # what takes a rollout back belongs to none
        row.generation = document.generation


def history(session: Session, device: str) -> tuple[Issued, ...]:
    """Every desired state a device was given, oldest first."""
    query = select(DesiredRow).where(DesiredRow.device == device).order_by(DesiredRow.generation)
    return tuple(
        Issued(Desired.parse(row.desired.encode()), Outcome(row.outcome) if row.outcome else None)
        for row in session.scalars(query)
    )


def last_generation(session: Session, device: str) -> int:
    """The highest generation that was signed for a device; 0 for none."""
    query = select(func.max(DesiredRow.generation)).where(DesiredRow.device == device)
    return session.scalar(query) or 0


def latest_documents(
    session: Session, devices: Iterable[str] | None = None, *, unpublished: bool = False
) -> tuple[Document, ...]:
    """The newest document of each device (of those given), or only what is not published yet."""
    newest = select(DesiredRow.device, func.max(DesiredRow.generation).label("generation"))
    if devices is not None:
        newest = newest.where(DesiredRow.device.in_(tuple(devices)))
    latest = newest.group_by(DesiredRow.device).subquery()
    query = select(DesiredRow).join(
        latest,
        (DesiredRow.device == latest.c.device) & (DesiredRow.generation == latest.c.generation),
    )
    if unpublished:
        query = query.where(DesiredRow.published_at.is_(None))
    return tuple(Document(d.device, d.generation, d.signed) for d in session.scalars(query))


def expiring(session: Session, issued_before: datetime, limit: int) -> tuple[Wanted, ...]:
    """Newest desired states that were signed long ago, and that a device still is to follow."""
    query = _newest().where(
        DesiredRow.issued_at < issued_before.isoformat(),
        DesiredRow.outcome.is_(None) | DesiredRow.outcome.in_(GOOD),
    )
    return tuple(_wanted(row) for row in session.scalars(query.limit(limit)))


def canceled_unfinished(session: Session, limit: int) -> tuple[Wanted, ...]:
    """Newest desired states of rollouts that were canceled before the device was done."""
    query = (
        _newest()
        .join(Rollout, Rollout.rollout_id == DesiredRow.deployment_id)
        .where(Rollout.state == RolloutState.CANCELED, DesiredRow.outcome.is_(None))
    )
    return tuple(_wanted(row) for row in session.scalars(query.limit(limit)))


def cancel(session: Session, rollout_id: str | None, now: datetime) -> RolloutView:
    """Stop a rollout; None is the last one. The controller takes back what was not done yet.

    Raises:
        FleetError: ``BAD_REQUEST``, there is none, or it is over.
    """
    found = view(session, rollout_id)
    if found.standing is not RolloutState.RUNNING:
        detail = f"{found.rollout_id} is over: it {found.standing}"
        hint = "To go back, roll out the release before it: stoker rollout create …"
        raise FleetError(ReasonCode.BAD_REQUEST, detail, hint=hint)
    finish(session, found.rollout_id, RolloutState.CANCELED, now)
    return view(session, found.rollout_id)


def _newest() -> Select[DesiredRow]:
    newest = (
        select(DesiredRow.device, func.max(DesiredRow.generation).label("generation"))
        .group_by(DesiredRow.device)
        .subquery()
    )
    on = (DesiredRow.device == newest.c.device) & (DesiredRow.generation == newest.c.generation)
    return select(DesiredRow).join(newest, on)


def _wanted(row: DesiredRow) -> Wanted:
    outcome = Outcome(row.outcome) if row.outcome else None
    return Wanted(row.generation, Desired.parse(row.desired.encode()), outcome)


def mark_published(session: Session, device: str, generation: int, now: datetime) -> None:
    """The broker has it."""
    row = session.get(DesiredRow, (device, generation))
    if row is not None and row.published_at is None:
        row.published_at = now.isoformat()


def finish(session: Session, rollout_id: str, state: RolloutState, now: datetime) -> None:
    """A rollout is over."""
    query = select(Rollout).where(Rollout.rollout_id == rollout_id)
    row = session.scalars(query).one()
    row.state, row.finished_at = state, now.isoformat()


def deployments(session: Session, device: str, limit: int = 10) -> tuple[Deployment, ...]:
    """The last desired states of a device, newest first."""
    query = (
        select(DesiredRow, Rollout)
        .outerjoin(Rollout, Rollout.rollout_id == DesiredRow.deployment_id)
        .where(DesiredRow.device == device)
        .order_by(DesiredRow.generation.desc())
        .limit(limit)
    )
    rows: list[tuple[DesiredRow, Rollout | None]] = [(d, r) for d, r in session.execute(query)]
    return tuple(
        Deployment(
            generation=row.generation,
            rollout_id=row.deployment_id,
            release=rollout.release if rollout is not None else "",
            slot=rollout.slot if rollout is not None else "",
            issued_at=row.issued_at,
            published_at=row.published_at,
            phase=Phase(row.phase) if row.phase else None,
            outcome=Outcome(row.outcome) if row.outcome else None,
            code=ReasonCode(row.code) if row.code else None,
            detail=row.detail,
            measured=Measured.parse(row.measured.encode()),
        )
        for row, rollout in rows
    )


def _measured(rows: Iterable[DesiredRow | None]) -> dict[str, Measured]:
    return {row.device: Measured.parse(row.measured.encode()) for row in rows if row is not None}


def _progress(
    target: RolloutDevice, device: Device | None, desired: DesiredRow | None
) -> DeviceProgress:
    common = DeviceProgress(
        device=target.device,
        reachable=device is not None and device.online,
        skipped=ReasonCode(target.skipped) if target.skipped else None,
        generation=target.generation,
        detail=target.detail,
    )
    if desired is None:
        return common
    return DeviceProgress(
        device=common.device,
        reachable=common.reachable,
        generation=desired.generation,
        notified=desired.published_at is not None or desired.phase is not None,
        phase=Phase(desired.phase) if desired.phase else None,
        outcome=Outcome(desired.outcome) if desired.outcome else None,
        code=ReasonCode(desired.code) if desired.code else None,
        detail=desired.detail,
    )
