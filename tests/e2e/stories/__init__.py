"""The stories, in the order in which they are told: each finds the site whole and leaves it so."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from e2e.proof import Proof
from e2e.stories import (
    certificates,
    clock,
    disks,
    links,
    power,
    provisioning,
    restarts,
    rollouts,
    upgrade,
)


@dataclass(frozen=True, slots=True)
class Story:
    """Something that is done to the site, and what has to hold.

    Attributes:
        by_default: told without ``--all``.
    """

    name: str
    title: str
    tell: Callable[[Proof], None]
    by_default: bool = True


ALWAYS: Final = (
    Story("provision", "Bare boxes become a fleet", provisioning.provision),
    Story("first-release", "The first release", rollouts.first_release),
)
"""What every other story builds on."""

STORIES: Final = (
    *ALWAYS,
    Story("idempotence", "The playbook once more", provisioning.provision_again),
    Story("enrol", "A fourth box joins", provisioning.enrol),
    Story("swap", "Swaps under load", rollouts.swap_under_load),
    Story("bad-candidates", "Releases that must not be served", rollouts.bad_candidates),
    Story("out-of-memory", "A release that takes all memory", rollouts.out_of_memory),
    Story("agent-restart", "The agent is restarted", restarts.agent_restart),
    Story("server-restart", "The server is restarted", restarts.server_restart),
    Story("kills", "Processes are killed", restarts.kills),
    Story("watchdogs", "Processes stand still", restarts.watchdogs),
    Story("bad-line", "A bad line", links.bad_line),
    Story("partition", "A line is cut, and heals", links.partition),
    Story("cloud", "Broker and controller are killed", links.cloud_killed),
    Story("full-disk", "A disk is full", disks.full),
    Story("read-only-disk", "A disk fails", disks.read_only),
    Story("boot", "A boot without network", power.boot_without_network),
    Story("power-cuts", "Power goes at any moment", power.cuts_in_a_deployment),
    Story("clock", "A clock is wrong", clock.wrong_at_boot),
    Story("expired", "A certificate has expired", certificates.expired),
    Story("revoked", "A device is lost", certificates.revoked),
    Story("upgrade", "Stoker itself is upgraded", upgrade.upgrade_and_downgrade),
)
