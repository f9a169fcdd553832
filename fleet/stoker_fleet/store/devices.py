"""Devices as they last said they are."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker_contract.codes import ReasonCode
from stoker_contract.reported import Reported
from stoker_fleet.errors import FleetError
from stoker_fleet.store.schema import Device


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


def _view(row: Device) -> DeviceView:
    reported = Reported.parse(row.reported.encode()) if row.reported else None
    return DeviceView(row.device, row.online, row.presence_at, reported, row.reported_at)
