"""Rollouts over a real broker, with a real controller process and devices that speak MQTT."""

import signal
from collections.abc import Callable, Iterator

import pytest
from tuf.api.metadata import Metadata, Root, Targets

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.desired import Desired
from stoker_contract.status import Phase
from stoker_contract.target import Arch, Profile
from stoker_fleet.core.rollout import Progress, RolloutState, measure, state_of
from support.fleet_site import FleetSite
from support.simulated_device import Ending, SimulatedDevice
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


def _observed(site: FleetSite, device: str) -> int:
    reported = site.known()[device].reported
    return reported.observed_generation if reported is not None else 0


def test_a_release_reaches_every_device(site: FleetSite, make_device: MakeDevice) -> None:
    """Two devices get documents of their own, report, and the rollout has succeeded."""
    site.start_controller()
    devices = [make_device("edge-1"), make_device("edge-2")]
    site.publish("1.0.0", 1)
    site.wait_for("edge-1", "edge-2")

    rollout_id = site.roll_out("digits/1.0.0")

    done = site.wait_until_over(rollout_id)
    assert state_of(done.devices) is RolloutState.SUCCEEDED
    assert measure(done.devices) == Progress(
        targeted=2,
        reachable=2,
        skipped=0,
        notified=2,
        started=2,
        final=2,
        outcomes={Outcome.SUCCEEDED: 2},
    )
    for device in devices:
        desired = device.wait_for_generation(1)
        assert desired.device == device.device
        assert desired.slots["main"].release == "digits/1.0.0"


def test_every_device_gets_a_document_of_its_own(site: FleetSite, make_device: MakeDevice) -> None:
    """What is signed for one device verifies, and names that device only."""
    site.start_controller()
    devices = [make_device("edge-1"), make_device("edge-2")]
    site.publish("1.0.0", 1)
    site.wait_for("edge-1", "edge-2")
    site.roll_out("digits/1.0.0")

    for device in devices:
        device.wait_for_generation(1)
    root = Metadata[Root].from_bytes((site.folder / "keys/trust/director-root.json").read_bytes())
    for device in devices:
        ((_, desired, data),) = device.received
        document = Metadata[Targets].from_bytes(data)
        root.signed.verify_delegate("targets", document.signed_bytes, document.signatures)
        assert desired.device == device.device
        assert len(data) < 8192


def test_a_device_that_can_not_run_it_is_skipped_with_the_reason(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """An incompatible device gets nothing, and the rollout says why."""
    site.start_controller()
    arm = make_device("arm-1", profile=Profile(arch=Arch.AARCH64))
    make_device("edge-1")
    site.publish("1.0.0", 1)
    site.wait_for("arm-1", "edge-1")
    rollout_id = site.roll_out("digits/1.0.0")

    skipped, served = site.wait_until_over(rollout_id).devices
    assert (skipped.device, skipped.skipped) == ("arm-1", ReasonCode.INCOMPATIBLE_TARGET)
    assert "needs x86_64" in skipped.detail
    assert served.outcome is Outcome.SUCCEEDED
    assert arm.received == []


def test_a_rollback_is_a_failed_rollout_and_does_not_come_back(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """After v2 was rolled back, a rollout to another slot asks for v1 again, not for v2."""

    def dislike_v2(desired: Desired) -> Ending:
        if any(slot.release == "digits/2.0.0" for slot in desired.slots.values()):
            return Ending(Outcome.ROLLED_BACK, ReasonCode.PROBATION_LATENCY, "p99 doubled")
        return Ending()

    site.start_controller()
    device = make_device("edge-1", behave=dislike_v2)
    site.publish("1.0.0", 1)
    site.publish("2.0.0", 2)
    site.publish("1.0.0", 1, model="photos")
    site.wait_for("edge-1")
    outcomes = []
    for release, slot in (("digits/1.0.0", "a"), ("digits/2.0.0", "a"), ("photos/1.0.0", "b")):
        (one,) = site.wait_until_over(site.roll_out(release, slot=slot)).devices
        outcomes.append((one.outcome, one.code))

    assert outcomes == [
        (Outcome.SUCCEEDED, None),
        (Outcome.ROLLED_BACK, ReasonCode.PROBATION_LATENCY),
        (Outcome.SUCCEEDED, None),
    ]
    releases = {name: s.release for name, s in device.wait_for_generation(3).slots.items()}
    assert releases == {"a": "digits/1.0.0", "b": "photos/1.0.0"}


def test_a_killed_controller_continues_where_it_was(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """Events that came while no controller ran are taken in; no generation is used twice."""
    first = site.start_controller()
    device = make_device("edge-1", behave=lambda _: None)
    site.publish("1.0.0", 1)
    site.publish("2.0.0", 2)
    site.wait_for("edge-1")
    rollout_id = site.roll_out("digits/1.0.0")
    desired = device.wait_for_generation(1)
    first.kill()
    first.wait()
    final = device.event(desired, 1, Phase.IDLE, final=True, outcome=Outcome.SUCCEEDED)
    device.publish(device.topics.status(rollout_id), final)

    site.roll_out("digits/2.0.0")
    site.start_controller()

    assert site.wait_until_over(rollout_id).devices[0].outcome is Outcome.SUCCEEDED
    assert device.wait_for_generation(2).slots["main"].release == "digits/2.0.0"
    by_generation: dict[int, set[bytes]] = {}
    for generation, _, data in device.received:
        by_generation.setdefault(generation, set()).add(data)
    assert {generation: len(bytes_) for generation, bytes_ in by_generation.items()} == {1: 1, 2: 1}


def test_a_lost_store_does_not_reuse_generations(site: FleetSite, make_device: MakeDevice) -> None:
    """A controller that knows nothing goes on above what the device has seen."""
    first = site.start_controller()
    device = make_device("edge-1")
    site.publish("1.0.0", 1)
    site.publish("2.0.0", 2)
    site.wait_for("edge-1")
    site.roll_out("digits/1.0.0")
    device.wait_for_generation(1)
    wait_until(lambda: _observed(site, "edge-1") == 1, what="the device reported generation 1")
    site.store.close()
    first.kill()
    first.wait()
    for path in site.folder.glob("fleet.db*"):
        path.unlink()

    site.start_controller()
    device.publish(device.topics.reported, device.reported(), retain=True)
    site.wait_for("edge-1")
    site.roll_out("digits/2.0.0")

    assert device.wait_for_generation(2).slots["main"].release == "digits/2.0.0"


def test_a_device_that_is_away_takes_it_when_it_is_back(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """An unreachable device is no failure: the desired state waits for it at the broker."""
    site.start_controller()
    gone = make_device("edge-1")
    site.publish("1.0.0", 1)
    site.wait_for("edge-1")
    gone.vanish()
    wait_until(lambda: not site.known()["edge-1"].online, what="the will arrived")
    rollout_id = site.roll_out("digits/1.0.0")
    wait_until(lambda: site.rollout(rollout_id).devices[0].notified, what="the broker has it")
    assert not site.rollout(rollout_id).devices[0].reachable

    back = make_device("edge-1", epoch=2)

    assert state_of(site.wait_until_over(rollout_id).devices) is RolloutState.SUCCEEDED
    assert back.generation == 1


def test_a_broker_that_forgot_is_told_again(site: FleetSite, make_device: MakeDevice) -> None:
    """A device that asks gets the same bytes again, also from a broker that lost everything."""
    site.start_controller()
    device = make_device("edge-1")
    site.publish("1.0.0", 1)
    site.wait_for("edge-1")
    site.roll_out("digits/1.0.0")
    device.wait_for_generation(1)
    site.broker.stop()
    for path in site.broker.directory.glob("*.db*"):
        path.unlink()
    site.broker.start()

    wait_until(lambda: len(device.received) >= 2, timeout_s=30, what="it is published again")
    before = len(device.received)
    device.ask()
    wait_until(lambda: len(device.received) > before, what="the device is answered")

    assert len({data for _, _, data in device.received}) == 1


def test_there_is_only_one_controller(site: FleetSite) -> None:
    """A second controller on the same store refuses to start, and the first goes on."""
    first = site.start_controller()

    second = site.stoker("fleet", "run", check=False)

    assert second.returncode == 1
    assert "a controller already works on" in second.stderr
    assert first.poll() is None


def test_sigterm_ends_the_controller_in_order(site: FleetSite) -> None:
    """SIGTERM is a normal end."""
    process = site.start_controller()

    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 0


def test_noise_does_not_stop_the_controller(site: FleetSite, make_device: MakeDevice) -> None:
    """After messages that are no documents, a rollout still works."""
    site.start_controller()
    device = make_device("edge-1")
    site.wait_for("edge-1")
    for payload in (b"", b"{", b"\xff" * 100, b"[" * 10_000, b"x" * 70_000):
        device.publish(device.topics.reported, payload)
        device.publish(device.topics.telemetry, payload)
    device.publish("stoker/v1/demo/edge-1/status/nothing", b"{}")
    site.publish("1.0.0", 1)

    rollout_id = site.roll_out("digits/1.0.0")

    assert state_of(site.wait_until_over(rollout_id).devices) is RolloutState.SUCCEEDED
    # The two empty ones clear what is retained, and are no message.
    assert sum(line["event"] == "message.refused" for line in site.log()) == 9
