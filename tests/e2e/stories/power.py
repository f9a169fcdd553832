"""Power: how soon a device serves after it came, and what happens when it goes at any moment."""

import time

from e2e.devices import Device
from e2e.fleet import SUCCEEDED, End
from e2e.netem import Condition
from e2e.proof import Proof

CUTS = 10
PADDING_MIB = 2.0
SLOW = Condition(rate_kbit=10_000)
LONGEST_S = 8.0
"""About as long as such an update takes: a cut may come before, in or after each of its phases."""


def boot_without_network(proof: Proof) -> None:
    """A cold boot to the first answer, with nobody to talk to."""
    device = proof.device(1)
    before = proof.wait_until_serving(device).release
    device.node.switch_off()
    with device.node.link.being(Condition(cut=True)):
        began_s = time.monotonic()
        device.node.switch_on()
        served = proof.wait_until_serving(device)
        first_s = time.monotonic() - began_s
        device.node.wait_until_up()
    proof.promise(
        "a boot without network: the device serves what it served before",
        f"first right answer {first_s:.1f} s after the power came",
        held=served.release == before,
    )


def cuts_in_a_deployment(proof: Proof) -> None:
    """Power is cut at random moments of deployments, on all devices in turn."""
    devices = list(proof.devices.values())
    boots_s: list[float] = []
    ended: list[End] = []
    wrong: list[str] = []
    while len(boots_s) < CUTS:
        version = proof.releases.publish_next(padding_mib=PADDING_MIB)
        old = {device.name: proof.wait_until_serving(device).release for device in devices}
        for device in devices:
            device.node.link.set(SLOW)
        rollout = proof.roll_out(version, *devices)
        boots_s += _cut_each(proof, devices)
        for device in devices:
            device.node.link.set(Condition())
        ends = proof.ends(rollout, timeout_s=240)
        for device in devices:
            end = ends[device.name]
            expected = f"digits/{version}" if end == SUCCEEDED else old[device.name]
            served = proof.wait_until_serving(device).release
            if served != expected or end.outcome is None:
                wrong.append(f"{device.name}: {end}, but it serves {served}")
        ended += ends.values()
    proof.promise(
        f"power is cut at {len(boots_s)} random moments of deployments: always serving after boot",
        f"right answers from whole, published bytes, at most {max(boots_s):.1f} s after power came",
        held=len(boots_s) >= CUTS,
    )
    counts = {str(end): sum(one == end for one in ended) for end in ended}
    proof.promise(
        "each of these deployments ends, and the device serves what its end says",
        ", ".join([f"{count} {end}" for end, count in counts.items()] + wrong),
        held=not wrong,
    )
    count, not_one = proof.single_words(devices)
    proof.promise(
        "every deployment has exactly one final status",
        f"{count} deployments, {not_one} without",
        held=bool(count) and not not_one,
    )


def _cut_each(proof: Proof, devices: list[Device]) -> list[float]:
    """Cut the power of each device at a moment of its own. Returns seconds from power to answer."""
    moments = sorted((proof.rng.uniform(0, LONGEST_S), device.name) for device in devices)
    began_s = time.monotonic()
    powered: dict[str, float] = {}
    for moment_s, name in moments:
        # The one place where a time is waited for: the moment is what is random.
        time.sleep(max(0.0, began_s + moment_s - time.monotonic()))
        node = proof.devices[name].node
        node.cut_power()
        powered[name] = time.monotonic()
        node.switch_on()
    taken = []
    for name, since_s in powered.items():
        proof.wait_until_serving(proof.devices[name])
        taken.append(time.monotonic() - since_s)
    for name in powered:
        proof.devices[name].node.wait_until_up()
    return taken
