"""Stoker itself is replaced by a newer one, and not by an older one."""

from contextlib import ExitStack

from e2e.devices import PROGRAMS, Device
from e2e.load import load
from e2e.playbooks import SITE, Ran
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
    older = proof.playbooks.run(SITE, proof.wheels, "--limit", "stoker_devices")
    _refused(proof, "a downgrade is refused, and changes nothing", older, "is older")
    odd = proof.playbooks.run(
        SITE, proof.next_wheels, "--limit", "stoker_devices", agent_http="nowhere"
    )
    text = "units that the programs do not understand are refused, and nothing is changed"
    _refused(proof, text, odd, "can not be started")
    served = {proof.wait_until_serving(device).release for device in devices}
    proof.promise(
        "after both, all serve what they served",
        ", ".join(sorted(served)),
        held={_version(device) for device in devices} == {proof.next_wheels.version}
        and served == {f"digits/{version}"},
    )


def _refused(proof: Proof, text: str, ran: Ran, reason: str) -> None:
    """Nothing was changed on any device, and it was said why."""
    held = ran.failed == len(proof.devices) and not ran.changed and reason in ran.output
    proof.promise(text, f"{ran}; says {'so' if reason in ran.output else 'nothing'}", held=held)
    if not held:
        proof.fact(ran.output[-4000:])


def _version(device: Device) -> str:
    return device.node.run(f"{PROGRAMS}/stoker-agent", "--version").split()[-1]
