"""Disks fill up, and fail."""

from e2e.devices import AGENT, SERVER
from e2e.disks import fail
from e2e.faults import full_disk
from e2e.fleet import SUCCEEDED, End
from e2e.load import load, lost
from e2e.proof import Proof, shown

PADDING_MIB = 8
NO_SPACE = End("FAILED_NO_CHANGE", "DISK_SPACE")


def full(proof: Proof) -> None:
    """A disk that has too little space stops an update; one that has none at all, nothing else."""
    device = proof.device(3)
    before = proof.wait_until_serving(device).release
    version = proof.releases.publish_next(padding_mib=PADDING_MIB)
    with load(device, proof.releases.frames_file, proof.folder) as sent:
        with full_disk(device, left_mib=PADDING_MIB // 2):
            ends = proof.ends(proof.roll_out(version, device))
        sent.wait_for_more()
        window = sent.stop()
    proof.promise(
        "an update that does not fit on the disk fails before anything changes",
        f"{shown(ends)}; {lost(window)}",
        held=ends[device.name] == NO_SPACE and window.releases == (before,) and not window.failed,
    )
    with load(device, proof.releases.frames_file, proof.folder) as sent, full_disk(device):
        ended = device.restarts(AGENT)
        rollout = proof.roll_out(proof.releases.publish_next(), device)
        sent.wait_for_more(200)
        window = sent.stop()
        ended = device.restarts(AGENT) - ended
        device.node.cut_power()
        device.node.boot()
        served = proof.wait_until_serving(device)
    proof.promise(
        "with no block left inference goes on, also after the power was cut",
        f"{lost(window)}; {served.release} serves after the boot; the agent ended {ended} times",
        held=not window.failed and served.release == before and not ended,
    )
    # Whether it could note the update down at all depends on the moment; an end it has either way.
    ends = proof.ends(rollout)
    version = proof.update(device)
    proof.promise(
        "with space again, updates go on",
        f"{shown(ends)}, then {version} serves",
        held=ends[device.name] in {SUCCEEDED, NO_SPACE},
    )


def read_only(proof: Proof) -> None:
    """The kernel finds an error on the disk and makes it read-only, as it would a dying card."""
    device = proof.device(3)
    before = proof.wait_until_serving(device).release
    version = proof.releases.publish_next()
    with load(device, proof.releases.frames_file, proof.folder) as sent:
        fail(device.node.folder / "disk.img")
        rollout = proof.roll_out(version, device)
        sent.wait_for_more(200)
        device.node.run("systemctl", "restart", SERVER)
        sent.wait_for_more()
        window = sent.stop()
    proof.promise(
        "with a disk that became read-only inference goes on, also through a restart of the server",
        f"{lost(window)}; {', '.join(window.releases)} served",
        held=not window.failed and window.releases == (before,),
    )
    device.node.cut_power()
    device.node.boot()
    proof.wait_until_serving(device)
    ends = proof.ends(rollout, timeout_s=180)
    proof.promise(
        "after a boot that repaired the disk, the device takes the update it could not take",
        shown(ends),
        held=set(ends.values()) == {SUCCEEDED},
    )
