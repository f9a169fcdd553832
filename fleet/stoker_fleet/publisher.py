"""From a rollout to signed desired states: decide per device, sign, write down, publish.

What is signed is durable before it is published, with its generation. So a controller that is
killed publishes the same bytes again, and never two documents of one generation.
"""

from datetime import datetime, timedelta
from typing import Protocol

import structlog
from sqlalchemy.orm import Session

from stoker_contract.desired import Desired, Policy
from stoker_fleet.core.assignment import assign, next_generation, other_slots
from stoker_fleet.errors import FleetError
from stoker_fleet.store import devices, rollouts
from stoker_fleet.store.rollouts import Document, RolloutView
from stoker_trust.catalogue import Release
from stoker_trust.director import Director
from stoker_trust.errors import TrustError

log = structlog.get_logger()


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
        stored = rollouts.last_generation(session, device)
        generation = next_generation(stored, reported.observed_generation)
        desired = Desired(
            device=device,
            fleet=self._fleet,
            deployment_id=rollout.rollout_id,
            issued=now.isoformat(),
            slots={**kept, rollout.slot: slot},
            policy=Policy(deadline_s=rollout.plan.deadline_s, force=rollout.plan.force),
        )
        signed = self._director.sign(desired, generation, now, lifetime=self._lifetime)
        document = Document(device, generation, signed)
        rollouts.record(session, desired, document, now)
        session.flush()
        return document
