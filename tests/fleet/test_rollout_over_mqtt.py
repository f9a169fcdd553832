"""Rollouts over a real broker, with a real controller process and devices that speak MQTT."""

from collections.abc import Callable, Iterator

import pytest

from support.fleet_site import FleetSite
from support.simulated_device import SimulatedDevice
from support.waiting import wait_until

MakeDevice = Callable[..., SimulatedDevice]


@pytest.fixture
def make_device(site: FleetSite) -> Iterator[MakeDevice]:
    devices: list[SimulatedDevice] = []

    def make(device: str, **more: object) -> SimulatedDevice:
        devices.append(SimulatedDevice(site.broker.port, device, **more).start())  # type: ignore[arg-type]
        return devices[-1]

    yield make
    for device in devices:
        device.stop()


def known(site: FleetSite) -> dict[str, dict[str, object]]:
    return {one["device"]: one for one in site.stoker_json("device", "list") if one["reported"]}


def create(site: FleetSite, release: str, to: str = "all", slot: str = "main") -> str:
    created = site.stoker_json("rollout", "create", release, "--to", to, "--slot", slot)
    rollout_id: str = created["rollout_id"]
    return rollout_id


def test_a_release_reaches_every_device(site: FleetSite, make_device: MakeDevice) -> None:
    """Two devices get documents of their own, report, and the rollout has succeeded."""
    site.start_controller()
    devices = [make_device("edge-1"), make_device("edge-2")]
    site.publish("1.0.0", 1)
    wait_until(lambda: len(known(site)) == 2, what="both devices are known")

    rollout_id = create(site, "digits/1.0.0")

    done = site.stoker_json("rollout", "watch", rollout_id, "--timeout-s", "20")
    assert done["state"] == "succeeded"
    assert done["progress"] == {
        "targeted": 2,
        "reachable": 2,
        "skipped": 0,
        "notified": 2,
        "started": 2,
        "final": 2,
        "outcomes": {"SUCCEEDED": 2},
    }
    for device in devices:
        desired = device.wait_for_generation(1)
        assert desired.device == device.device
        assert desired.slots["main"].release == "digits/1.0.0"
