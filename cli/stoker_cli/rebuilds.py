"""What devices wait for, as jobs of a build service: where fleet and builder meet."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stoker_builder.errors import BuildError
from stoker_builder.tensorrt.targets import plan_targets
from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.documents import JobView
from stoker_builder.workers.rebuilding import again_for, plan_of, target_for
from stoker_cli.fleet_options import open_fleet, warn_without_controller
from stoker_contract.manifest import Manifest
from stoker_fleet.controller import catalogue
from stoker_fleet.store.rebuilds import Rebuild, wanted_rebuilds
from stoker_trust.errors import TrustError

_READER = "builds"


@dataclass(frozen=True)
class Asked:
    """What became of one wish.

    Attributes:
        why: why there is no job.
    """

    wanted: Rebuild
    job: JobView | None = None
    why: str = ""


def ask_again(config: Path | None, service: ServiceClient) -> tuple[Asked, ...]:
    """Ask a service for everything that devices of a fleet wait for.

    Raises:
        FleetError: the fleet's configuration or repository is not at hand.
        BuildError: ``BUILD_SERVICE``: it can not be asked.
    """
    settings, store = open_fleet(config)
    warn_without_controller(settings)
    with store.transaction() as session:
        wanted = wanted_rebuilds(session)
    service.workers()  # one error for all, if it is not there
    releases = catalogue(settings, _READER)
    asked = []
    for one in wanted:
        try:
            asked.append(_ask(one, releases.release(one.release).manifest, service))
        except (BuildError, TrustError) as error:
            asked.append(Asked(one, why=f"{error.detail}; {error.hint}"))
    return tuple(asked)


def as_object(asked: Asked) -> dict[str, Any]:
    """The same as JSON."""
    job = None if asked.job is None else asked.job.to_object()
    return {"wanted": asdict(asked.wanted), "job": job, "why": asked.why}


def _ask(wanted: Rebuild, manifest: Manifest, service: ServiceClient) -> Asked:
    hardware = wanted.hardware
    target = target_for(hardware.module, hardware.tensorrt, hardware.l4t, plan_targets())
    if target is None:
        board = f"{hardware.module or hardware.arch} with TensorRT {hardware.tensorrt or 'unknown'}"
        return Asked(wanted, why=f"no target is like a {board} (`stoker target list`)")
    plan = plan_of(manifest, hardware.module)
    if plan is None:
        return Asked(wanted, why=f"the release has no plan for {hardware.module}")
    before = service.maker_of(plan.digest)
    return Asked(wanted, service.submit(again_for(target, before.job)))
