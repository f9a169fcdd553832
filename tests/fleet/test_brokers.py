"""Other brokers than a plain mosquitto: one with certificates, one that only speaks 3.1.1."""

import importlib.util
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from stoker_cli.broker.configuration import TlsFiles
from stoker_cli.broker.process import Broker, find_mosquitto
from stoker_contract.codes import Outcome
from stoker_contract.topics import DeviceTopics
from stoker_fleet.config import MqttConfig, TlsConfig
from stoker_fleet.controller import CLIENT_ID
from stoker_fleet.link import Connected, Delivered, Link, Message, find_protocol
from stoker_trust.pki import BROKER, CA, Authority
from support.fleet_site import FleetSite
from support.simulated_device import SimulatedDevice
from support.waiting import wait_until

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "pki")
    now = datetime.now(UTC)
    authority.create(now)
    for name in (CLIENT_ID, "edge-1", "edge-2"):
        authority.issue(name, now)
    return authority


def tls_of(authority: Authority, name: str) -> TlsConfig:
    return TlsConfig(
        ca=authority.certificate(CA),
        certificate=authority.certificate(name),
        key=authority.key(name),
    )


@pytest.fixture
def secured(authority: Authority, tmp_path: Path) -> Iterator[FleetSite]:
    files = TlsFiles(
        authority.certificate(CA), authority.certificate(BROKER), authority.key(BROKER)
    )
    with Broker(tmp_path / "broker", tls=files, program="mosquitto") as broker:
        site = FleetSite(tmp_path / "site", broker, tls=tls_of(authority, CLIENT_ID))
        yield site
        site.close()


@needs_mosquitto
def test_a_rollout_with_certificates(secured: FleetSite, authority: Authority) -> None:
    """With mutual TLS and the broker's access list the whole way works."""
    secured.start_controller()
    device = SimulatedDevice(secured.broker.port, "edge-1", tls=tls_of(authority, "edge-1")).start()
    try:
        secured.publish("1.0.0", 1)
        secured.wait_for("edge-1")

        (done,) = secured.wait_until_over(secured.roll_out("digits/1.0.0")).devices

        assert done.outcome is Outcome.SUCCEEDED
        assert device.generation == 1
    finally:
        device.stop()


@needs_mosquitto
def test_a_device_can_not_speak_for_another_at_the_broker(
    secured: FleetSite, authority: Authority
) -> None:
    """What edge-2 writes to edge-1's topics does not arrive."""
    secured.start_controller()
    honest = SimulatedDevice(secured.broker.port, "edge-1", tls=tls_of(authority, "edge-1")).start()
    liar = SimulatedDevice(secured.broker.port, "edge-2", tls=tls_of(authority, "edge-2")).start()
    try:
        secured.wait_for("edge-1", "edge-2")
        forged = honest.reported().model_copy(update={"seq": 999, "observed_generation": 999})

        liar.publish(DeviceTopics("demo", "edge-1").reported, forged, retain=True)
        liar.publish(liar.topics.reported, liar.reported(), retain=True)

        wait_until(lambda: _seq(secured, "edge-2") > 1, what="what edge-2 says of itself arrives")
        assert _seq(secured, "edge-1") == 1
    finally:
        honest.stop()
        liar.stop()


def _seq(site: FleetSite, device: str) -> int:
    reported = site.known()[device].reported
    return reported.seq if reported is not None else 0


@pytest.mark.skipif(importlib.util.find_spec("amqtt") is None, reason="amqtt is not installed")
def test_a_rollout_over_a_broker_that_only_speaks_3_1_1(tmp_path: Path) -> None:
    """The controller finds out by itself, and everything works as with MQTT 5."""
    with Broker(tmp_path / "broker", program="in-process") as broker:
        site = FleetSite(tmp_path / "site", broker)
        site.start_controller()
        device = SimulatedDevice(
            broker.port, "edge-1", protocol=MQTTProtocolVersion.MQTTv311
        ).start()
        try:
            site.publish("1.0.0", 1)
            site.wait_for("edge-1")

            (done,) = site.wait_until_over(site.roll_out("digits/1.0.0")).devices

            assert done.outcome is Outcome.SUCCEEDED
        finally:
            device.stop()
            site.close()


@needs_mosquitto
def test_nobody_there_is_told_from_another_protocol(tmp_path: Path) -> None:
    """Without a broker there is no answer, not a wrong one; with mosquitto it is MQTT 5."""
    broker = Broker(tmp_path / "broker", program="mosquitto")
    config = MqttConfig(port=broker.port)
    assert find_protocol(config, "tester") is None

    with broker:
        assert find_protocol(config, "tester") == "5"


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    with Broker(tmp_path / "broker", program="mosquitto") as broker:
        config = MqttConfig(port=broker.port)
        link = Link(config, "5", "tester", ("stoker/v1/demo/+/get",))
        link.start()
        yield link
        link.stop()


def take(link: Link, enough: int, kind: type[Delivered | Message | Connected]) -> list[object]:
    found: list[object] = []

    def look() -> bool:
        for event in link.take(0.1):
            if isinstance(event, Message):
                link.acknowledge(event)
            if isinstance(event, kind):
                found.append(event)
        return len(found) >= enough

    wait_until(look, timeout_s=30, what=f"{enough} of {kind}")
    return found


@needs_mosquitto
def test_publishing_in_a_storm_of_answers_does_not_lock_up(link: Link) -> None:
    """Thousands of publications, answered while others are sent, are each delivered once."""
    take(link, 1, Connected)
    for number in range(3000):
        link.publish(f"stoker/v1/demo/edge-{number}/desired", b"x" * 100, number, retain=False)

    delivered = take(link, 3000, Delivered)

    assert delivered == [Delivered(number) for number in range(3000)]


@needs_mosquitto
def test_what_is_not_acknowledged_comes_again(tmp_path: Path) -> None:
    """A message that was taken but not stored is delivered to the next process."""
    with Broker(tmp_path / "broker", program="mosquitto") as broker:
        config = MqttConfig(port=broker.port)
        first = Link(config, "5", "tester", ("stoker/v1/demo/+/get",))
        first.start()
        take(first, 1, Connected)
        wait_until(lambda: _echo(first), what="the subscription works")
        first.stop()

        second = Link(config, "5", "tester", ("stoker/v1/demo/+/get",))
        second.start()
        try:
            message, *_ = take(second, 1, Message)
            assert isinstance(message, Message)
            assert message.payload == b"hello"
        finally:
            second.stop()


def _echo(link: Link) -> bool:
    """Publish to a topic we listen to; whether it came back. It is not acknowledged."""
    link.publish("stoker/v1/demo/edge-1/get", b"hello", "token", retain=False)
    return any(isinstance(event, Message) for event in link.take(5))
