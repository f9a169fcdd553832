"""Stoker itself is replaced by a newer one, and not by an older one."""

from contextlib import ExitStack

from e2e.devices import PROGRAMS, Device
from e2e.load import load
from e2e.playbooks import SITE
from e2e.proof import Proof

UPGRADE = "stoker.edge.upgrade"


def upgrade_and_downgrade(proof: Proof) -> None:
    """A new version of stoker on every device, under load; then somebody tries the old one."""
    devices = list(proof.devices.values())
    with ExitStack() as loads:
        sent = [
            loads.enter_context(load(one, proof.releases.frames_file, proof.folder, rate_hz=20))
            for one in devices
        ]
        ran = proof.playbooks.run(UPGRADE, proof.next_wheels)
        windows = [one.stop() for one in sent]
    requests = sum(len(window.answers) for window in windows)
    failed = sum(len(window.failed) for window in windows)
    versions = {_version(device) for device in devices}
    if ran.failed:
        proof.fact(ran.output[-4000:])
    proof.promise(
        "stoker itself is upgraded under load, and no request is lost",
        f"{', '.join(sorted(versions))}; {requests:,} requests, {failed} lost",
        held=not ran.failed and versions == {proof.next_wheels.version} and not failed,
    )
    version = proof.update(*devices)
    proof.promise("after it, updates of models go on", f"{version} on {len(devices)}", held=True)
    refused = proof.playbooks.run(SITE, proof.wheels, "--limit", "stoker_devices")
    served = [proof.wait_until_serving(device).release for device in devices]
    proof.promise(
        "a downgrade is refused, and changes nothing",
        f"{refused}; says {'so' if 'is older' in refused.output else 'nothing'}",
        held=refused.failed == len(devices)
        and not refused.changed
        and "is older" in refused.output
        and {_version(device) for device in devices} == {proof.next_wheels.version}
        and set(served) == {f"digits/{version}"},
    )


def _version(device: Device) -> str:
    return device.node.run(f"{PROGRAMS}/stoker-agent", "--version").split()[-1]
