"""The development broker, with real clients."""

import contextlib
import queue
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from stoker_cli.broker.configuration import CONTROLLER, TlsFiles, access_list
from stoker_cli.broker.ports import is_listening
from stoker_cli.broker.process import Broker, Program, find_mosquitto
from stoker_trust.pki import BROKER, CA, Authority
from support.waiting import wait_until

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")

PROGRAMS = [pytest.param("mosquitto", marks=needs_mosquitto), "in-process"]


@pytest.fixture(params=PROGRAMS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    program: Program = request.param
    with Broker(tmp_path / "broker", program=program) as running:
        yield running


class Client:
    """A client that keeps what it was sent."""

    def __init__(
        self, broker: Broker, protocol: MQTTProtocolVersion, *, name: str | None = None
    ) -> None:
        self.received: queue.Queue[bytes] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_message = lambda _client, _data, message: self.received.put(
            bytes(message.payload)
        )
        if name is not None and broker.tls is not None:
            pki = Authority(broker.tls.ca.parent)
            certificate, key = str(pki.certificate(name)), str(pki.key(name))
            self._client.tls_set(str(broker.tls.ca), certificate, key)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        wait_until(self._client.is_connected)

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_what_is_retained_reaches_a_later_client(broker: Broker) -> None:
    """Both brokers speak MQTT 3.1.1 and keep what is retained."""
    sender = Client(broker, MQTTProtocolVersion.MQTTv311)
    sender.publish("stoker/v1/demo/edge-1/desired", b"generation 1")
    receiver = Client(broker, MQTTProtocolVersion.MQTTv311)
    receiver.subscribe("stoker/v1/demo/+/desired")
    assert receiver.received.get(timeout=30) == b"generation 1"
    sender.close()
    receiver.close()


@needs_mosquitto
def test_what_is_retained_survives_a_kill(tmp_path: Path) -> None:
    """A killed mosquitto comes back on the same port with what it had acknowledged."""
    with Broker(tmp_path, program="mosquitto") as broker:
        sender = Client(broker, MQTTProtocolVersion.MQTTv5)
        sender.publish("stoker/v1/demo/edge-1/desired", b"generation 1")
        saved = tmp_path / "mosquitto.db"
        wait_until(lambda: saved.exists() and b"generation 1" in saved.read_bytes())
        sender.close()
        broker.kill()
        broker.start()
        receiver = Client(broker, MQTTProtocolVersion.MQTTv5)
        receiver.subscribe("stoker/v1/demo/edge-1/desired")
        assert receiver.received.get(timeout=30) == b"generation 1"
        receiver.close()


@pytest.fixture
def closed_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that asks for certificates, and three of them."""
    authority, now = Authority(tmp_path / "pki"), datetime.now(UTC)
    authority.create(now)
    for name in (CONTROLLER, "edge-1", "edge-2"):
        authority.issue(name, now)
    tls = TlsFiles(authority.certificate(CA), authority.certificate(BROKER), authority.key(BROKER))
    with Broker(tmp_path / "broker", program="mosquitto", tls=tls) as running:
        yield running


@needs_mosquitto
def test_a_device_reaches_no_topic_of_another(closed_broker: Broker) -> None:
    """What a device writes under another name, or as a desired state, reaches nobody."""
    controller = Client(closed_broker, MQTTProtocolVersion.MQTTv5, name=CONTROLLER)
    device = Client(closed_broker, MQTTProtocolVersion.MQTTv5, name="edge-1")
    other = Client(closed_broker, MQTTProtocolVersion.MQTTv5, name="edge-2")
    controller.subscribe("stoker/v1/#")
    other.subscribe("stoker/v1/demo/edge-1/desired")
    controller.publish("stoker/v1/demo/edge-1/desired", b"for edge-1")
    device.publish("stoker/v1/demo/edge-2/reported", b"a lie")
    device.publish("stoker/v1/demo/edge-1/desired", b"a wish")
    device.publish("stoker/v1/demo/edge-1/reported", b"the truth")
    received = {controller.received.get(timeout=30) for _ in range(2)}
    assert received == {b"for edge-1", b"the truth"}
    assert other.received.empty()
    for client in (controller, device, other):
        client.close()


@needs_mosquitto
def test_nobody_gets_in_without_a_certificate(closed_broker: Broker) -> None:
    """TLS without a client certificate, and no TLS at all, are both refused."""
    assert closed_broker.tls is not None
    trusting = ssl.create_default_context(cafile=str(closed_broker.tls.ca))
    for context in (trusting, None):
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if context is not None:
            client.tls_set_context(context)
        assert _refused(client, closed_broker)


def _refused(client: mqtt.Client, broker: Broker) -> bool:
    accepted: list[bool] = []
    client.on_connect = lambda *_: accepted.append(True)
    with contextlib.suppress(OSError):
        client.connect(broker.host, broker.port)
        wait_until(lambda: client.loop(0.1) is not mqtt.MQTT_ERR_SUCCESS)
    return not accepted


def test_nobody_listens_once_it_has_stopped(broker: Broker) -> None:
    """Stopping ends the process and frees the port."""
    broker.stop()
    assert not broker.is_running
    assert not is_listening(broker.port)


def test_a_device_may_not_write_what_it_should_do() -> None:
    """The access list lets a device read its desired state, and write only its own words."""
    rules = access_list().splitlines()
    assert "pattern read stoker/v1/+/%u/desired" in rules
    writable = [rule for rule in rules if rule.startswith("pattern") and " read " not in rule]
    assert writable
    assert all("%u" in rule and "desired" not in rule for rule in writable)
