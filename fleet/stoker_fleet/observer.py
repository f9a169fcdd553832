"""Reading what devices send, and taking it into the store. No message is fatal."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import structlog
from sqlalchemy.orm import Session

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.reported import Get, Presence, Reported
from stoker_contract.status import StatusEvent
from stoker_contract.telemetry import Telemetry
from stoker_contract.topics import fleet_filter, split
from stoker_fleet.store import ingest
from stoker_fleet.store.devices import is_forgotten
from stoker_fleet.store.schema import count

log = structlog.get_logger()

MAX_NUMBER: Final = 2**53 - 1
"""What any JSON reader and any database can hold, and no honest device ever reaches."""

_NUMBERS: Final = (
    *("epoch", "connection", "seq"),
    *("generation", "attempt", "observed_generation"),
)
D = TypeVar("D", Reported, StatusEvent, Presence, Telemetry, Get)


@dataclass(frozen=True)
class Asked:
    """A device asked for its desired state."""

    device: str
    have_generation: int


def filters(fleet: str) -> tuple[str, ...]:
    """What the controller subscribes to."""
    kinds = ("reported", "status/+", "presence", "telemetry", "get")
    return tuple(fleet_filter(fleet, kind) for kind in kinds)


class Observer:
    """Takes messages of one fleet into the store."""

    def __init__(self, fleet: str) -> None:
        self._fleet = fleet

    def observe(self, session: Session, topic: str, payload: bytes, now: datetime) -> Asked | None:
        """Store one message. What is malformed is counted and dropped, what is old is dropped."""
        if not payload:  # a retained message was cleared
            return None
        try:
            asked, kept = self._store(session, topic, payload, now)
        except ContractError as error:
            count(session, "malformed")
            log.warning(
                "message.refused", topic=topic[:200], code=error.code, detail=error.detail[:200]
            )
            return None
        if not kept:
            count(session, "repeated_or_stale")
            log.debug("message.known", topic=topic)
        return asked

    def _store(
        self, session: Session, topic: str, payload: bytes, now: datetime
    ) -> tuple[Asked | None, bool]:
        _, device, what = split(topic)
        if is_forgotten(session, device):
            # What the broker retained of it. Once that is cleared, a device that lives is new.
            return None, False
        match what.split("/"):
            case ["reported"]:
                reported = _from(device, Reported.parse(payload))
                _same("fleet", reported.fleet, self._fleet)
                return None, ingest.store_reported(session, reported, now)
            case ["status", deployment]:
                status = _from(device, StatusEvent.parse(payload))
                _same("deployment", status.deployment_id, deployment)
                return None, ingest.store_status(session, status, now)
            case ["presence"]:
                presence = _from(device, Presence.parse(payload))
                return None, ingest.store_presence(session, presence, now)
            case ["telemetry"]:
                telemetry = _from(device, Telemetry.parse(payload))
                return None, ingest.store_telemetry(session, telemetry, now)
            case ["get"]:
                get = _from(device, Get.parse(payload))
                return Asked(get.device, get.have_generation), True
        raise ContractError(ReasonCode.MALFORMED, f"nothing is expected on {topic[:200]}")


def _from(device: str, document: D) -> D:
    """The broker lets a device write to its own topics only, so the topic says who it is."""
    _same("device", document.device, device)
    for name in _NUMBERS:
        if getattr(document, name, 0) > MAX_NUMBER:
            raise ContractError(ReasonCode.MALFORMED, f"{name} is above {MAX_NUMBER}")
    return document


def _same(what: str, told: str, expected: str) -> None:
    if told != expected:
        detail = f"the {what} is {told}, and the topic says {expected}"
        raise ContractError(ReasonCode.WRONG_DEVICE, detail)
