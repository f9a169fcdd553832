"""What outlives a rollout: documents that expire, rollouts that are stopped, devices that go."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Metadata, Targets

from stoker_contract.codes import Outcome
from stoker_contract.desired import Desired
from stoker_contract.reported import Ended, Reported
from stoker_contract.topics import DeviceTopics
from stoker_fleet.controller import catalogue
from stoker_fleet.core.rollout import RolloutState, state_of
from stoker_fleet.publisher import Publisher
from stoker_fleet.store import devices, ingest
from stoker_trust.director import Director
from stoker_trust.keys import open_keyring
from support.documents import PROFILE, TIME
from support.fleet_site import FleetSite
from support.mosquitto import Observer
from support.simulated_device import Ending, SimulatedDevice
from support.waiting import wait_until

MakeDevice = Callable[..., SimulatedDevice]
LIFETIME = timedelta(days=90)


@pytest.fixture
def make_device(site: FleetSite) -> Iterator[MakeDevice]:
    made: list[SimulatedDevice] = []

    def make(device: str, **more: object) -> SimulatedDevice:
        made.append(SimulatedDevice(site.broker.port, device, **more).start())  # type: ignore[arg-type]
        return made[-1]

    yield make
    for device in made:
        device.stop()


def publisher(site: FleetSite) -> Publisher:
    """The signing part of the controller, to be used at another time than now."""
    director = Director(open_keyring(site.config.keys))
    return Publisher("demo", director, catalogue(site.config, "test"), LIFETIME)


def renew(site: FleetSite, days: float) -> None:
    """What the controller does so many days from now."""
    with site.store.transaction() as session:
        publisher(site).renew(session, datetime.now(UTC) + timedelta(days=days))


def test_a_document_is_signed_again_before_it_expires(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """In good time and once: the same slots in a new generation; the rollout stays as it was."""
    site.start_controller()
    device = make_device("edge-1")
    site.publish("1.0.0", 1)
    site.wait_for("edge-1")
    rollout_id = site.roll_out("digits/1.0.0")
    site.wait_until_over(rollout_id)
    renew(site, 59)
    renew(site, 61)
    renew(site, 61)
    again = device.wait_for_generation(2)
    first, second = (Metadata[Targets].from_bytes(data).signed for _, _, data in device.received)

    assert again.slots == device.received[0][1].slots
    assert second.expires - first.expires > timedelta(days=60)
    assert [generation for generation, _, _ in device.received] == [1, 2]
    (progress,) = site.rollout(rollout_id).devices
    assert (progress.generation, progress.outcome) == (1, Outcome.SUCCEEDED)


def test_a_device_that_was_away_for_long_still_counts_in_its_rollout(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """What it never answered is signed again for the same rollout, and its answer ends that."""
    site.start_controller()
    make_device("edge-1", behave=lambda _: None).vanish()
    site.publish("1.0.0", 1)
    site.wait_for("edge-1")
    rollout_id = site.roll_out("digits/1.0.0")
    wait_until(lambda: site.rollout(rollout_id).devices[0].notified, what="it is published")
    renew(site, 61)
    back = make_device("edge-1", epoch=2)
    back.wait_for_generation(2)

    assert state_of(site.wait_until_over(rollout_id).devices) is RolloutState.SUCCEEDED
    assert site.rollout(rollout_id).devices[0].generation == 2


def test_a_rollout_that_is_canceled_is_taken_back_where_it_was_not_done(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """Who is done keeps it; who is not is asked for what it was asked before."""

    def slow_with_v2(desired: Desired) -> Ending | None:
        return None if desired.slots["main"].release == "digits/2.0.0" else Ending()

    site.start_controller()
    quick, slow = make_device("edge-1"), make_device("edge-2", behave=slow_with_v2)
    site.publish("1.0.0", 1)
    site.publish("2.0.0", 2)
    site.wait_for("edge-1", "edge-2")
    site.wait_until_over(site.roll_out("digits/1.0.0"))
    second = site.roll_out("digits/2.0.0")
    slow.wait_for_generation(2)
    wait_until(lambda: site.rollout(second).devices[0].final, what="edge-1 is done")
    said = site.stoker("rollout", "cancel").stdout
    back = slow.wait_for_generation(3)
    wait_until(lambda: site.rollout(second).devices[1].final, what="edge-2 told that")
    watched = site.stoker("rollout", "watch", second, check=False)
    again = site.stoker("rollout", "cancel", check=False)

    assert f"Canceled {second}: 1 of 2" in said
    assert back.slots["main"].release == "digits/1.0.0"
    assert back.deployment_id == f"{second}-canceled"
    assert [generation for generation, _, _ in quick.received] == [1, 2]
    outcomes = [device.outcome for device in site.rollout(second).devices]
    assert outcomes == [Outcome.SUCCEEDED, Outcome.SUPERSEDED]
    assert site.stoker_json("rollout", "list")[0]["state"] == "canceled"
    assert (watched.returncode, again.returncode) == (1, 1)
    assert "BAD_REQUEST" in again.stderr


def test_a_first_rollout_that_is_canceled_asks_for_nothing(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """There is nothing before it to go back to, so the document names no slot."""
    site.start_controller()
    device = make_device("edge-1", behave=lambda _: None)
    site.publish("1.0.0", 1)
    site.wait_for("edge-1")
    site.roll_out("digits/1.0.0")
    device.wait_for_generation(1)
    site.stoker("rollout", "cancel")

    assert device.wait_for_generation(2).slots == {}
    renew(site, 61)
    assert device.wait_for_generation(3).slots == {}


def test_a_device_that_is_gone_for_good_is_forgotten(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """By the store and by the broker; what still lives is not, and comes back as a new one."""
    site.start_controller()
    device = make_device("edge-1")
    site.publish("1.0.0", 1)
    site.wait_for("edge-1")
    site.wait_until_over(site.roll_out("digits/1.0.0"))
    online = site.stoker("device", "forget", "edge-1", check=False)
    device.vanish()
    wait_until(lambda: not site.known()["edge-1"].online, what="it is offline")
    site.stoker("device", "forget", "edge-1")
    wait_until(lambda: not _forgotten(site), what="the broker has let go of it")
    topics = DeviceTopics("demo", "edge-1")
    with Observer(site.broker.port) as observer:
        kept = [observer.payloads(t) for t in (topics.desired, topics.reported, topics.presence)]

    assert "BAD_REQUEST" in online.stderr
    assert "edge-1" not in site.known()
    assert kept == [[], [], []]
    returned = make_device("edge-1", epoch=2)
    site.wait_for("edge-1")
    assert site.stoker_json("device", "show", "edge-1")["deployments"] == []
    assert site.stoker_json("rollout", "list")[0]["state"] == "succeeded"
    site.wait_until_over(site.roll_out("digits/1.0.0"))
    assert len(returned.received) == 1


def _forgotten(site: FleetSite) -> tuple[str, ...]:
    with site.store.transaction() as session:
        return devices.forgotten(session)


def test_an_end_that_nobody_heard_is_read_from_the_retained_report(
    site: FleetSite, make_device: MakeDevice
) -> None:
    """Events of a time when no controller had a session are gone; the report is not."""
    site.publish("1.0.0", 1)
    report = Reported(device="edge-1", fleet="demo", epoch=1, seq=1, profile=PROFILE, time=TIME)
    with site.store.transaction() as session:
        ingest.store_reported(session, report, datetime.now(UTC))
    rollout_id = site.roll_out("digits/1.0.0")
    with site.store.transaction() as session:
        publisher(site).assign(session, rollout_id, datetime.now(UTC))
    device = SimulatedDevice(site.broker.port, "edge-1", epoch=2)
    ended = Ended(deployment_id=rollout_id, generation=1, outcome=Outcome.SUCCEEDED)
    device.generation = 1
    device.start()
    try:
        report = device.reported().model_copy(update={"last": ended})
        device.publish(device.topics.reported, report, retain=True)
        site.start_controller()

        over = site.wait_until_over(rollout_id)
        assert state_of(over.devices) is RolloutState.SUCCEEDED
    finally:
        device.stop()
