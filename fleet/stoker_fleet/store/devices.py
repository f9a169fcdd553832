"""Devices as they last said they are."""

from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from stoker_contract.codes import ReasonCode
from stoker_contract.reported import Reported
from stoker_fleet.core.rollout import RolloutState
from stoker_fleet.errors import FleetError
from stoker_fleet.store.schema import (
    DesiredRow,
    Device,
    Forgotten,
    LatencyRow,
    RebuildRow,
    Rollout,
    RolloutDevice,
    StatusRow,
)


@dataclass(frozen=True)
class DeviceView:
    """A device. ``reported`` is None for one that only said it is there."""

    device: str
    online: bool
    presence_at: str | None
    reported: Reported | None
    reported_at: str | None


def all_devices(session: Session) -> tuple[DeviceView, ...]:
    """Every device that ever said something."""
    rows = session.scalars(select(Device).order_by(Device.device))
    return tuple(_view(row) for row in rows)


def one_device(session: Session, name: str) -> DeviceView:
    """One device.

    Raises:
        FleetError: ``BAD_REQUEST``, nothing was ever heard of it.
    """
    row = session.get(Device, name)
    if row is None:
        detail = f"nothing was ever heard of a device {name}"
        hint = "`stoker device list` shows the devices that are known."
        raise FleetError(ReasonCode.BAD_REQUEST, detail, hint=hint)
    return _view(row)


def profiled(session: Session, name: str) -> Reported:
    """What a device said of itself, which is what decides what fits it.

    Raises:
        FleetError: ``BAD_REQUEST``, it has not said anything yet.
    """
    reported = one_device(session, name).reported
    if reported is None:
        raise FleetError(ReasonCode.BAD_REQUEST, f"{name} has not said yet what it is")
    return reported


def observed_generation(session: Session, name: str) -> int:
    """The highest generation that a device said it has seen; 0 if it said nothing."""
    row = session.get(Device, name)
    reported = _view(row).reported if row is not None else None
    return reported.observed_generation if reported is not None else 0


def forget(session: Session, name: str, *, even_online: bool = False) -> None:
    """Remove everything that is known of a device; the controller clears its topics.

    Raises:
        FleetError: ``BAD_REQUEST``, it is not known, it is online, or a rollout still waits
            for it.
    """
    if one_device(session, name).online and not even_online:
        hint = "It would be back at once. Stop its agent, or say --force."
        raise FleetError(ReasonCode.BAD_REQUEST, f"{name} is online", hint=hint)
    waiting = (
        select(RolloutDevice.rollout_id)
        .join(Rollout, Rollout.rollout_id == RolloutDevice.rollout_id)
        .where(RolloutDevice.device == name, Rollout.state == RolloutState.RUNNING)
    )
    rollout_id = session.scalars(waiting.limit(1)).first()
    if rollout_id is not None:
        detail = f"rollout {rollout_id} waits for {name}"
        hint = f"End it first: stoker rollout cancel {rollout_id}"
        raise FleetError(ReasonCode.BAD_REQUEST, detail, hint=hint)
    for table in (StatusRow, LatencyRow, DesiredRow, RebuildRow, Device):
        session.execute(delete(table).where(table.device == name))
    session.merge(Forgotten(device=name))


def forgotten(session: Session) -> tuple[str, ...]:
    """The devices whose topics are still to be cleared."""
    return tuple(session.scalars(select(Forgotten.device)))


def is_forgotten(session: Session, name: str) -> bool:
    """Whether the broker may still keep something of a device that was forgotten."""
    return session.get(Forgotten, name) is not None


def cleared(session: Session, name: str) -> None:
    """The broker keeps nothing of a forgotten device any more."""
    session.execute(delete(Forgotten).where(Forgotten.device == name))


def _view(row: Device) -> DeviceView:
    reported = Reported.parse(row.reported.encode()) if row.reported else None
    return DeviceView(row.device, row.online, row.presence_at, reported, row.reported_at)
