"""Releases reach devices, and applications do not notice."""

from e2e.devices import SERVER, Device
from e2e.faults import changed
from e2e.fleet import SUCCEEDED
from e2e.load import load, lost
from e2e.proof import Proof, shown
from e2e.releases import take_memory
from stoker_cli.demo.variants import Edit, swap_labels

BOMB_GB = 64
MEMORY_MAX = "700M"
TAKEN_GB = 2


def first_release(proof: Proof) -> None:
    """The first release reaches every device, and answers what it was certified to answer."""
    version = proof.releases.publish_first()
    ends = proof.ends(proof.roll_out(version, *proof.devices.values()))
    proof.promise(
        f"digits/{version} reaches every device",
        shown(ends),
        held=set(ends) == set(proof.devices) and set(ends.values()) == {SUCCEEDED},
    )
    served = [proof.right_serving(device) for device in proof.devices.values()]
    right = sum(one is not None and one.release == f"digits/{version}" for one in served)
    proof.promise(
        "each device gives the certified answer to each golden input",
        f"{right} of {len(served)} devices, {len(proof.releases.right)} inputs each",
        held=right == len(served),
    )


def swap_under_load(proof: Proof) -> None:
    """A new version is swapped in while applications send, three times."""
    device = proof.device(1)
    with load(device, proof.releases.frames_file, proof.folder) as sent:
        versions = [proof.update(device) for _ in range(3)]
        sent.wait_for_more()
        window = sent.stop()
    p99_ms = window.quantile_ms(0.99) or 0.0
    proof.promise(
        "no request is lost while three versions are swapped in",
        f"{lost(window)}, p99 {p99_ms:.1f} ms",
        held=not window.failed and window.releases[-1] == f"digits/{versions[-1]}",
    )


def bad_candidates(proof: Proof) -> None:
    """A version with wrong answers, and one that asks for all memory: neither is ever served."""
    device = proof.device(2)
    _refused(proof, device, "gives wrong answers", swap_labels)
    _refused(proof, device, f"asks for {BOMB_GB} GB at once", take_memory(BOMB_GB))


def out_of_memory(proof: Proof) -> None:
    """A version that takes more memory than the service may have, where the kernel has to act."""
    device = proof.device(2)
    with changed(device, SERVER, f"MemoryMax={MEMORY_MAX}"):
        proof.wait_until_serving(device)
        _refused(
            proof,
            device,
            f"takes {TAKEN_GB} GB where there are {MEMORY_MAX}",
            take_memory(TAKEN_GB),
        )
        proof.fact(f"the kernel killed for memory: {device.killed_for_memory(SERVER)}")


def _refused(proof: Proof, device: Device, what: str, edit: Edit) -> None:
    before = proof.wait_until_serving(device).release
    version = proof.releases.publish_next(edit)
    with load(device, proof.releases.frames_file, proof.folder) as sent:
        ends = proof.ends(proof.roll_out(version, device))
        sent.wait_for_more()
        window = sent.stop()
    proof.promise(
        f"a version that {what} is refused, and nobody notices",
        f"{shown(ends)}; {lost(window)}",
        held=ends[device.name].outcome == "FAILED_NO_CHANGE"
        and window.releases == (before,)
        and not window.failed,
    )
