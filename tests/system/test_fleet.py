"""From a release folder to an answer on a device, through every process there is."""

import pytest

from stoker_client.errors import InferError
from support.fleet_of_processes import DEVICES, Fleet, ask
from support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SUCCEEDED = ("SUCCEEDED", None)


def check_story(fleet: Fleet) -> None:
    devices = fleet.lab.devices.values()
    assert fleet.roll_out("2.0.0") == dict.fromkeys(DEVICES, SUCCEEDED)
    assert [ask(device) for device in devices] == [2.0, 2.0]
    assert fleet.roll_out("3.0.0") == dict.fromkeys(DEVICES, SUCCEEDED)
    assert [ask(device) for device in devices] == [3.0, 3.0]
    fleet.publish("4.0.0", factor=-4.0)
    refused = ("FAILED_NO_CHANGE", "GOLDEN_FAIL")
    assert fleet.outcomes(fleet.start_rollout("4.0.0")) == dict.fromkeys(DEVICES, refused)
    assert [ask(device) for device in devices] == [3.0, 3.0]


def test_releases_reach_every_device_and_a_wrong_one_none(fleet: Fleet) -> None:
    """Two good releases are committed everywhere; one with wrong answers changes nothing."""
    check_story(fleet)


def test_the_same_holds_without_mosquitto(fleet_without_mosquitto: Fleet) -> None:
    """A laptop with only the registry's broker sees the same (MQTT 3.1.1)."""
    check_story(fleet_without_mosquitto)


def test_a_broker_that_dies_in_a_rollout_delays_it_only(fleet: Fleet) -> None:
    """The desired state waits for the broker, and the final status arrives after it is back."""
    fleet.roll_out("2.0.0")
    fleet.publish("3.0.0")
    fleet.lab.broker.kill()
    rollout = fleet.start_rollout("3.0.0")
    assert ask(fleet.lab.devices["edge-1"]) == 2.0
    fleet.lab.broker.start()
    assert fleet.outcomes(rollout) == dict.fromkeys(DEVICES, SUCCEEDED)


def test_an_agent_that_dies_in_probation_leaves_the_device_serving(fleet: Fleet) -> None:
    """The server goes on; the agent that comes back brings the deployment to one end."""
    fleet.roll_out("2.0.0")
    device = fleet.lab.devices["edge-1"]
    fleet.publish("3.0.0")
    rollout = fleet.start_rollout("3.0.0", "edge-1", "--probation-s", "5")
    wait_until(lambda: ask(device) == 3.0, timeout_s=60, what="the swap")
    device.agent.kill()
    assert ask(device) in {2.0, 3.0}
    device.agent.start()
    outcome, _ = fleet.outcomes(rollout)["edge-1"]
    assert outcome in {"SUCCEEDED", "ROLLED_BACK"}
    assert ask(device) == (3.0 if outcome == "SUCCEEDED" else 2.0)


def test_a_device_serves_after_a_cold_boot_without_anybody(fleet: Fleet) -> None:
    """Without agent, broker, repository and controller, the server serves what was committed."""
    fleet.roll_out("2.0.0")
    device = fleet.lab.devices["edge-1"]
    device.stop()
    fleet.lab.broker.stop()
    device.start_server()
    wait_until(lambda: _answers(fleet), timeout_s=30, what="an answer after the boot")


def _answers(fleet: Fleet) -> bool:
    try:
        return ask(fleet.lab.devices["edge-1"]) == 2.0
    except InferError:
        return False
