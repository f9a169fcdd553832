"""From bare boxes to a fleet, and again to the same."""

import time

from e2e.playbooks import SITE
from e2e.proof import Proof

FIRST_DEVICES = 3


def provision(proof: Proof) -> None:
    """The playbook makes a fleet of bare boxes."""
    for number in range(1, FIRST_DEVICES + 1):
        proof.site.add_device(f"edge-{number}")
    began_s = time.monotonic()
    proof.site.cloud.switch_on()
    for node in proof.site.nodes:
        node.wait_until_up()
    proof.fact(f"{len(proof.site.nodes)} systems booted in {time.monotonic() - began_s:.1f} s")
    ran = proof.playbooks.run(SITE, proof.wheels)
    if ran.failed or not ran.hosts:
        proof.fact(ran.output[-4000:])
    proof.promise(
        "one playbook run makes a fleet of bare boxes",
        f"{ran} in {time.monotonic() - began_s:.0f} s",
        held=ran.hosts == len(proof.site.nodes) and not ran.failed,
    )
    proof.site.fleet.wait_until_online(*proof.devices)
    proof.promise("every device reports", ", ".join(sorted(proof.site.fleet.online())), held=True)


def provision_again(proof: Proof) -> None:
    """The playbook describes a state: where it is reached there is nothing to do."""
    checked = proof.playbooks.run(SITE, proof.wheels, "--check", "--diff")
    proof.promise("--check --diff sees nothing to change", str(checked), held=checked.is_quiet)
    again = proof.playbooks.run(SITE, proof.wheels)
    proof.promise("a second run changes nothing", str(again), held=again.is_quiet)
    for ran in (checked, again):
        if not ran.is_quiet:
            proof.fact(ran.output[-4000:])


def enrol(proof: Proof) -> None:
    """A new box joins with one command, and takes what the fleet serves."""
    device = proof.site.add_device(f"edge-{len(proof.devices) + 1}")
    device.node.wait_until_up()
    began_s = time.monotonic()
    ran = proof.playbooks.run(SITE, proof.wheels, "--limit", device.name)
    proof.site.fleet.wait_until_online(device.name)
    version = proof.update(device)
    served = proof.wait_until_serving(device)
    proof.promise(
        f"a new box is enrolled by one command, and serves {version}",
        f"{ran}; {time.monotonic() - began_s:.0f} s to right answers",
        held=not ran.failed and ran.hosts == 1 and served.release == f"digits/{version}",
    )
