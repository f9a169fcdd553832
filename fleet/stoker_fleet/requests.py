"""Asking for a rollout: everything that can be known to be wrong is refused before it begins."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from stoker_contract.codes import ReasonCode
from stoker_contract.names import Slug
from stoker_contract.target import why_incompatible
from stoker_fleet.core.assignment import RolloutPlan, assign
from stoker_fleet.core.selector import parse_selector
from stoker_fleet.errors import FleetError
from stoker_fleet.publisher import Releases
from stoker_fleet.store import devices, rollouts
from stoker_fleet.store.devices import DeviceView
from stoker_trust.catalogue import Release


@dataclass(frozen=True)
class Target:
    """What a selected device would get.

    Attributes:
        artifact: target and precision of the first artifact that fits.
        length: of that artifact, in bytes.
        refusal: why nothing fits.
    """

    device: str
    online: bool
    artifact: str | None = None
    length: int = 0
    refusal: str | None = None


@dataclass(frozen=True)
class Request:
    """A rollout that was written down."""

    rollout_id: str
    release: str
    slot: str
    targets: tuple[Target, ...]


def request_rollout(  # noqa: PLR0913  what an operator says, word for word
    session: Session,
    releases: Releases,
    *,
    release: str,
    slot: str,
    selector: str,
    plan: RolloutPlan,
    now: datetime,
) -> Request:
    """Write a rollout down for the controller.

    Raises:
        FleetError: no device is selected (``BAD_REQUEST``), or no selected device can run it
            (``INCOMPATIBLE_TARGET``).
        TrustError: there is no such release, or the repository can not be verified.
    """
    _require_slug(slot)
    found = releases.release(release)
    chosen = parse_selector(selector)
    known = [device for device in devices.all_devices(session) if device.reported is not None]
    selected = [d for d in known if d.reported and chosen.selects(d.device, d.reported.profile)]
    missing = chosen.devices - {device.device for device in selected}
    if missing or not selected:
        what = (
            f"nothing is known of {', '.join(sorted(missing))}"
            if missing
            else (f"{selector!r} selects none of {len(known)} known devices")
        )
        hint = "`stoker device list` shows the devices that are known, and their labels."
        raise FleetError(ReasonCode.BAD_REQUEST, what, hint=hint)
    targets = tuple(_target(found, device, plan) for device in selected)
    if all(target.refusal for target in targets):
        reasons = "; ".join(f"{target.device}: {target.refusal}" for target in targets)
        raise FleetError(ReasonCode.INCOMPATIBLE_TARGET, reasons)
    request = rollouts.RolloutRequest(
        release=release,
        slot=slot,
        selector=selector,
        plan=plan,
        devices=tuple(device.device for device in selected),
    )
    return Request(rollouts.create(session, request, now), release, slot, targets)


def _target(release: Release, device: DeviceView, plan: RolloutPlan) -> Target:
    if device.reported is None:
        return Target(device.device, device.online, refusal="it has not said yet what it is")
    profile = device.reported.profile
    try:
        assign(release.manifest, release.file, profile, plan)
    except FleetError as error:
        return Target(device.device, device.online, refusal=error.detail)
    first = next(
        artifact
        for artifact in release.manifest.artifacts
        if why_incompatible(artifact.target, artifact.kind, profile, artifact.session.runtime)
        is None
    )
    artifact = f"{first.target.name} {first.precision}"
    return Target(device.device, device.online, artifact, first.length)


def _require_slug(slot: str) -> None:
    try:
        TypeAdapter(Slug).validate_python(slot)
    except ValidationError:
        detail = f"{slot!r} is no slot name: lower-case letters, digits, '.', '-' and '_'"
        raise FleetError(ReasonCode.BAD_REQUEST, detail) from None
