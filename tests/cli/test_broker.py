"""The development broker, with real clients."""

import queue
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from stoker_cli.broker.configuration import access_list
from stoker_cli.broker.ports import is_listening
from stoker_cli.broker.process import Broker, Program, find_mosquitto
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

    def __init__(self, broker: Broker, protocol: MQTTProtocolVersion) -> None:
        self.received: queue.Queue[bytes] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_message = lambda _client, _data, message: self.received.put(
            bytes(message.payload)
        )
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
    assert receiver.received.get(timeout=10) == b"generation 1"
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
        assert receiver.received.get(timeout=10) == b"generation 1"
        receiver.close()


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
