"""A device without a battery for its clock."""

from e2e.devices import AGENT, SERVER
from e2e.faults import remove_drop_in, set_clock
from e2e.fleet import SUCCEEDED
from e2e.proof import Proof, shown

TIMES = {"1970": "@1970-01-01 00:00:30", "2040": "@2040-01-01 00:00:00"}


def wrong_at_boot(proof: Proof) -> None:
    """The clock is wrong by decades when the device boots, and right later."""
    device = proof.device(3)
    before = proof.wait_until_serving(device).release
    for year, time in TIMES.items():
        for unit in (AGENT, SERVER):
            set_clock(device, unit, time)
        device.node.run("sync")
        device.node.cut_power()
        device.node.boot()
        served = proof.wait_until_serving(device)
        device.stoker_agent("status", "--json")
        restarts = device.restarts(AGENT) + device.restarts(SERVER)
        for unit in (AGENT, SERVER):
            remove_drop_in(device, unit, "clock")
        proof.promise(
            f"booted in {year}, a device serves what it served before, and nothing crashes",
            f"{served.release}, {restarts} restarts",
            held=served.release == before and device.is_active(AGENT) and not restarts,
        )
    version = proof.releases.publish_next()
    rollout = proof.roll_out(version, device)
    for unit in (SERVER, AGENT):
        device.restart(unit)
    ends = proof.ends(rollout)
    proof.promise(
        "when its clock is right again, it takes what it missed",
        shown(ends),
        held=set(ends.values()) == {SUCCEEDED},
    )
