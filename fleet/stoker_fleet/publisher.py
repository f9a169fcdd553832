"""From a rollout to signed desired states: decide per device, sign, write down, publish.

What is signed is durable before it is published, with its generation. So a controller that is
killed publishes the same bytes again, and never two documents of one generation.
"""

from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from sqlalchemy.orm import Session

from stoker_contract.desired import Desired, Policy
from stoker_fleet.core.assignment import assign, next_generation, other_slots, standing_slots
from stoker_fleet.errors import FleetError
from stoker_fleet.store import devices, rollouts
from stoker_fleet.store.rollouts import Document, RolloutView
from stoker_trust.catalogue import Release
from stoker_trust.director import Director
from stoker_trust.errors import TrustError

log = structlog.get_logger()

RENEWED_AFTER: Final = 2 / 3
"""Of its lifetime: what is left is time for a controller that is down."""

MAX_AT_ONCE: Final = 50


class Releases(Protocol):
    """Where releases come from, verified."""

    def release(self, name: str) -> Release:
        """Find ``model/version``."""


class Publisher:
    """Signs the desired states of one fleet."""

    def __init__(
        self, fleet: str, director: Director, releases: Releases, lifetime: timedelta
    ) -> None:
        self._fleet = fleet
        self._director = director
        self._releases = releases
        self._lifetime = lifetime

    def assign(self, session: Session, rollout_id: str, now: datetime) -> None:
        """Sign for every device of a rollout that has nothing signed yet, or skip it.

        Raises:
            TrustError: the release can not be read now.
        """
        waiting = rollouts.unassigned(session, rollout_id)
        if not waiting:
            return
        rollout = rollouts.view(session, rollout_id)
        release = self._releases.release(rollout.release)
        for device in waiting:
            try:
                document = self._sign(session, rollout, release, device, now)
            except (FleetError, TrustError) as error:
                rollouts.skip(session, rollout_id, device, error.code, error.detail)
                log.warning(
                    "device.skipped",
                    rollout=rollout_id,
                    device=device,
                    code=error.code,
                    detail=error.detail,
                )
            else:
                log.info(
                    "desired.signed",
                    rollout=rollout_id,
                    device=device,
                    generation=document.generation,
                    bytes=len(document.signed),
                )

    def _sign(
        self,
        session: Session,
        rollout: RolloutView,
        release: Release,
        device: str,
        now: datetime,
    ) -> Document:
        reported = devices.profiled(session, device)
        slot = assign(release.manifest, release.file, reported.profile, rollout.plan)
        kept = other_slots(rollouts.history(session, device), rollout.slot)
        desired = Desired(
            device=device,
            fleet=self._fleet,
            deployment_id=rollout.rollout_id,
            issued=now.isoformat(),
            slots={**kept, rollout.slot: slot},
            policy=Policy(deadline_s=rollout.plan.deadline_s, force=rollout.plan.force),
        )
        return self._issue(session, desired, now, counts=True)

    def renew(self, session: Session, now: datetime) -> None:
        """Sign again what is about to expire: a device may come back after a long time.

        One that has carried it out answers with NOOP; its rollout keeps what it told then.
        """
        old = now - self._lifetime * RENEWED_AFTER
        for wanted in rollouts.expiring(session, old, MAX_AT_ONCE):
            desired = wanted.desired.model_copy(update={"issued": now.isoformat()})
            document = self._issue(session, desired, now, counts=wanted.outcome is None)
            log.info("desired.renewed", device=document.device, generation=document.generation)

    def take_back(self, session: Session, now: datetime) -> None:
        """Sign what was wanted before for each device that a canceled rollout had not changed."""
        for wanted in rollouts.canceled_unfinished(session, MAX_AT_ONCE):
            device = wanted.desired.device
            *before, _ = rollouts.history(session, device)
            desired = wanted.desired.model_copy(
                update={
                    "deployment_id": f"{wanted.desired.deployment_id}-canceled",
                    "issued": now.isoformat(),
                    "slots": dict(standing_slots(before)),
                }
            )
            document = self._issue(session, desired, now, counts=False)
            log.info("desired.taken_back", device=device, generation=document.generation)

    def _issue(
        self, session: Session, desired: Desired, now: datetime, *, counts: bool
    ) -> Document:
        stored = rollouts.last_generation(session, desired.device)
        observed = devices.observed_generation(session, desired.device)
        generation = next_generation(stored, observed)
        signed = self._director.sign(desired, generation, now, lifetime=self._lifetime)
        document = Document(desired.device, generation, signed)
        rollouts.record(session, desired, document, now, counts=counts)
        session.flush()
        return document
