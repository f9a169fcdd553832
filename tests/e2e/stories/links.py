"""The network is bad, gone, and back; and so is the broker."""

from e2e.fleet import SUCCEEDED
from e2e.load import load, lost
from e2e.netem import Condition
from e2e.proof import Proof, shown

PADDING_MIB = 2.0
BROKER = "mosquitto.service"
CONTROLLER = "stoker-controller.service"
FAR = Condition(delay_ms=100, jitter_ms=10, loss=0.05)
"""In each direction: 200 ms there and back."""


def bad_line(proof: Proof) -> None:
    """A release reaches a device over a line nobody would want."""
    device = proof.device(1)
    version = proof.releases.publish_next(padding_mib=PADDING_MIB)
    with device.node.link.being(FAR):
        rollout = proof.roll_out(version, device)
        ends = proof.ends(rollout, timeout_s=240)
    proof.promise(
        f"{PADDING_MIB:g} MiB arrive over a line with 200 ms and 5 % loss each way",
        shown(ends),
        held=set(ends.values()) == {SUCCEEDED},
    )


def partition(proof: Proof) -> None:
    """A device is cut off in the middle of a download, and finishes when it is back."""
    device = proof.device(2)
    version = proof.releases.publish_next(padding_mib=PADDING_MIB)
    with load(device, proof.releases.frames_file, proof.folder) as sent:
        device.node.link.set(Condition(rate_kbit=4000))
        rollout = proof.roll_out(version, device)
        proof.wait_for_download(device)
        device.node.link.set(Condition(cut=True))
        sent.wait_for_more(100)
        cut_off = proof.ends(rollout, timeout_s=0.1)
        device.node.link.set(Condition())
        ends = proof.ends(rollout, timeout_s=240)
        window = sent.stop()
    proof.promise(
        "cut off while it downloads, a device goes on serving",
        lost(window),
        held=not window.failed and cut_off[device.name].outcome is None,
    )
    proof.promise(
        "when the line is back, it finishes the same rollout",
        shown(ends),
        held=set(ends.values()) == {SUCCEEDED},
    )


def cloud_killed(proof: Proof) -> None:
    """The broker, then the controller, die while devices update."""
    for unit in (BROKER, CONTROLLER):
        devices = list(proof.devices.values())
        version = proof.releases.publish_next(padding_mib=PADDING_MIB)
        for device in devices:
            device.node.link.set(Condition(rate_kbit=8000))
        rollout = proof.roll_out(version, *devices)
        proof.wait_for_download(devices[0])
        proof.site.cloud.run("systemctl", "kill", "--signal=KILL", unit)
        for device in devices:
            device.node.link.set(Condition())
        ends = proof.ends(rollout, timeout_s=240)
        ended, wrong = proof.single_words(devices)
        proof.promise(
            f"{unit} is killed in the middle of a rollout: it ends all the same",
            f"{shown(ends)}; {ended} deployments so far, {wrong} without exactly one final status",
            held=set(ends.values()) == {SUCCEEDED} and not wrong,
        )
