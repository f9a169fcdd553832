"""Builds that devices ask for.

A plan of TensorRT runs with the software that it was compiled for. A device whose JetPack was
upgraded finds that out by itself, serves the portable fallback and reports the code
``PLAN_MISMATCH``: that report is the request, and its profile says what to build for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker_contract.codes import ReasonCode
from stoker_contract.reported import Reported
from stoker_contract.target import Profile
from stoker_fleet.store.schema import RebuildRow


@dataclass(frozen=True)
class Hardware:
    """What a plan has to be compiled for. None where the devices have no such thing."""

    arch: str
    module: str | None
    gpu_sm: str | None
    tensorrt: str | None
    cuda: str | None
    l4t: str | None


@dataclass(frozen=True)
class Rebuild:
    """One build that is wanted, and the devices that wait for it."""

    release: str
    hardware: Hardware
    devices: tuple[str, ...]
    asked_at: str
    detail: str


def note_rebuilds(session: Session, reported: Reported, now: datetime) -> None:
    """Record what a device asks for, and that what it asked for came."""
    for slot, state in reported.slots.items():
        release = state.committed_release
        if state.reason is ReasonCode.PLAN_MISMATCH and release is not None:
            _ask(session, reported, slot, release, state.detail, now)
        elif not state.degraded:
            for row in _open(session, reported.device, slot):
                row.done_at = now.isoformat()


def wanted_rebuilds(session: Session) -> tuple[Rebuild, ...]:
    """What is to be built: one entry for each release and kind of hardware."""
    rows = session.scalars(select(RebuildRow).where(RebuildRow.done_at.is_(None))).all()
    asked = [(row, hardware_of(Profile.parse(row.profile.encode()))) for row in rows]

    def key(entry: tuple[RebuildRow, Hardware]) -> tuple[str, str]:
        return entry[0].release, repr(entry[1])

    return tuple(_rebuild(list(group)) for _, group in groupby(sorted(asked, key=key), key))


def hardware_of(profile: Profile) -> Hardware:
    """The part of a profile that decides whether a plan fits."""
    return Hardware(
        arch=str(profile.arch),
        module=profile.module,
        gpu_sm=profile.gpu_sm,
        tensorrt=profile.tensorrt,
        cuda=profile.cuda,
        l4t=profile.l4t,
    )


def _rebuild(group: list[tuple[RebuildRow, Hardware]]) -> Rebuild:
    rows = [row for row, _ in group]
    return Rebuild(
        release=rows[0].release,
        hardware=group[0][1],
        devices=tuple(sorted({row.device for row in rows})),
        asked_at=min(row.asked_at for row in rows),
        detail=rows[0].detail,
    )


def _ask(  # noqa: PLR0913, PLR0917 - one argument for each column
    session: Session, reported: Reported, slot: str, release: str, detail: str, now: datetime
) -> None:
    profile = reported.profile.encode().decode()
    row = session.get(RebuildRow, (reported.device, slot, release))
    if row is None:
        row = RebuildRow(
            device=reported.device, slot=slot, release=release, asked_at=now.isoformat()
        )
        session.add(row)
    row.profile, row.detail, row.done_at = profile, detail, None


def _open(session: Session, device: str, slot: str) -> Iterator[RebuildRow]:
    yield from session.scalars(
        select(RebuildRow).where(
            RebuildRow.device == device, RebuildRow.slot == slot, RebuildRow.done_at.is_(None)
        )
    )
