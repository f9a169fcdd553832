"""Taking in what devices say. Every function may be called again with the same message.

``(epoch, seq)`` orders the messages of a device. State that is older than what is known is
dropped; events are kept whatever the order they come in.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker_contract.codes import Outcome
from stoker_contract.reported import Ended, Presence, Reported
from stoker_contract.status import Phase, StatusEvent
from stoker_contract.telemetry import Telemetry
from stoker_fleet.core.story import tell
from stoker_fleet.store.rebuilds import note_rebuilds
from stoker_fleet.store.schema import DesiredRow, Device, LatencyRow, StatusRow


def store_reported(session: Session, reported: Reported, now: datetime) -> bool:
    """Keep the actual state of a device; False if a newer one is known."""
    row = _device(session, reported.device)
    if (reported.epoch, reported.seq) < (row.reported_epoch or 0, row.reported_seq or 0):
        return False
    row.reported_epoch, row.reported_seq = reported.epoch, reported.seq
    row.reported = reported.encode().decode()
    row.reported_at = now.isoformat()
    note_rebuilds(session, reported, now)
    if reported.last is not None:
        _conclude(session, reported.device, reported.last)
    return True


def store_presence(session: Session, presence: Presence, now: datetime) -> bool:
    """Keep whether a device is there; False if this is of an earlier connection."""
    row = _device(session, presence.device)
    online = presence.state == "online"
    known = (-1 if row.presence_epoch is None else row.presence_epoch, row.presence_connection or 0)
    told = (presence.epoch, presence.connection)
    # A connection ends once: its birth, delivered again after its will, means nothing.
    revived = online and told == known and not row.online
    if told < known or revived:
        return False
    row.presence_epoch, row.presence_connection = told
    row.online, row.presence_at = online, now.isoformat()
    return True


def store_status(session: Session, status: StatusEvent, now: datetime) -> bool:
    """Keep an event of a deployment; False if it was known."""
    key = (status.device, status.epoch, status.seq)
    if session.get(StatusRow, key) is not None:
        return False
    session.add(
        StatusRow(
            device=status.device,
            epoch=status.epoch,
            seq=status.seq,
            deployment_id=status.deployment_id,
            generation=status.generation,
            document=status.encode().decode(),
            received_at=now.isoformat(),
        )
    )
    row = session.get(DesiredRow, (status.device, status.generation))
    if row is not None and row.deployment_id == status.deployment_id:
        _retell(session, row)
        _supersede_older(session, row)
    return True


def store_telemetry(session: Session, telemetry: Telemetry, now: datetime) -> bool:
    """Keep the latency windows of a device; False if they were known."""
    new = False
    for engine in telemetry.engines:
        key = (telemetry.device, telemetry.epoch, telemetry.seq, engine.slot, engine.digest)
        if session.get(LatencyRow, key) is None:
            device, epoch, seq, slot, digest = key
            session.add(
                LatencyRow(
                    device=device,
                    epoch=epoch,
                    seq=seq,
                    slot=slot,
                    digest=digest,
                    release=engine.release,
                    document=engine.encode().decode(),
                    end=telemetry.end,
                    received_at=now.isoformat(),
                )
            )
            session.flush()
            new = True
    return new


def _device(session: Session, name: str) -> Device:
    row = session.get(Device, name)
    if row is None:
        row = Device(device=name, online=False)
        session.add(row)
    return row


def _retell(session: Session, row: DesiredRow) -> None:
    events = select(StatusRow.document).where(
        StatusRow.device == row.device,
        StatusRow.generation == row.generation,
        StatusRow.deployment_id == row.deployment_id,
    )
    story = tell(StatusEvent.parse(document.encode()) for document in session.scalars(events))
    row.measured = story.measured.encode().decode()
    if row.inferred and story.outcome is None:
        return
    row.inferred = False
    row.phase, row.progress, row.outcome = story.phase, story.progress, story.outcome
    row.code, row.detail = story.code, story.detail


def _conclude(session: Session, device: str, ended: Ended) -> None:
    """Take the end of a deployment from the retained report, where its status events were lost.

    A broker keeps an event only for a session that it knows: before the first run of a
    controller, and after its session was forgotten, there is none.
    """
    row = session.get(DesiredRow, (device, ended.generation))
    if row is None or row.deployment_id != ended.deployment_id:
        return
    if row.outcome is not None and not row.inferred:
        return
    row.phase, row.outcome, row.inferred = Phase.IDLE, ended.outcome, True
    row.code, row.detail = ended.code, ended.detail
    _supersede_older(session, row)


def _supersede_older(session: Session, row: DesiredRow) -> None:
    """A device that works on a generation will never say anything about one it has not seen."""
    older = select(DesiredRow).where(
        DesiredRow.device == row.device,
        DesiredRow.generation < row.generation,
        DesiredRow.outcome.is_(None),
    )
    for left in session.scalars(older):
        left.outcome, left.inferred = Outcome.SUPERSEDED, True
        left.detail = f"the device went on with generation {row.generation}"
