"""The connection to the broker: everything that happens on it becomes an event in one queue.

The thread of the MQTT client only puts events in; one thread takes them out, stores them, and
acknowledges what it stored. So nothing is lost between the broker and the database, and an
exception can not end the client's thread.
"""

import queue
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from stoker_fleet.config import MqttConfig

Protocol = Literal["5", "3.1.1"]

_QOS: Final = 1
_SESSION_EXPIRY_S: Final = 7 * 24 * 3600
_RECEIVE_MAXIMUM: Final = 1000
_MAX_PACKET_BYTES: Final = 128 * 1024
_PROBE_S: Final = 5.0
_RECONNECT_CAP_S: Final = 30
_MAX_BATCH: Final = 500


@dataclass(frozen=True)
class Message:
    """A message that is not acknowledged yet."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    connection: int


@dataclass(frozen=True)
class Delivered:
    """The broker has what was published under this token, or refused it."""

    token: Any
    refused: str | None = None


@dataclass(frozen=True)
class Connected:
    """A connection was made. Without a session the broker knows nothing of before."""

    session_present: bool


@dataclass(frozen=True)
class Disconnected:
    """The connection is gone; the client makes a new one by itself."""

    reason: str


Event = Message | Delivered | Connected | Disconnected


@dataclass(frozen=True)
class _Answered:
    """The broker's answer to a publication, by the number that the client gave it."""

    mid: int
    refused: str | None


class Link:
    """A persistent session at the broker."""

    def __init__(
        self, config: MqttConfig, protocol: Protocol, client_id: str, filters: Sequence[str]
    ) -> None:
        self._filters = tuple(filters)
        self._events: queue.SimpleQueue[Event | _Answered] = queue.SimpleQueue()
        self._connection = 0
        self._tokens: dict[int, Any] = {}
        self._config = config
        self._client = _client(config, protocol, client_id, clean=False)
        self._client.reconnect_delay_set(1, _RECONNECT_CAP_S)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._protocol = protocol

    def start(self) -> None:
        """Begin to connect; the client goes on trying."""
        _connect_async(self._client, self._config, self._protocol, clean=False)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect. The session stays at the broker and collects what comes meanwhile."""
        self._client.disconnect()
        self._client.loop_stop()

    def take(self, timeout_s: float) -> list[Event]:
        """What happened since the last call; waits for the first event."""
        taken: list[Event | _Answered] = []
        try:
            taken.append(self._events.get(timeout=timeout_s))
            while len(taken) < _MAX_BATCH:
                taken.append(self._events.get_nowait())
        except queue.Empty:
            pass
        return [event for one in taken if (event := self._named(one)) is not None]

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is stored.

        A message of an earlier connection is not acknowledged: the broker delivers it again, and
        its number may belong to another message by now.
        """
        if message.connection == self._connection:
            self._client.ack(message.mid, message.qos)

    def publish(self, topic: str, payload: bytes, token: object, *, retain: bool) -> None:
        """Publish; a :class:`Delivered` with ``token`` follows once the broker has it.

        Published while offline, it is sent after the next connect. Call it, and :meth:`take`,
        from one thread only: so the answer, which may come before the number is known here, is
        looked up after it, and no lock is held while the client takes its own.
        """
        info = self._client.publish(topic, payload, qos=_QOS, retain=retain)
        self._tokens[info.mid] = token
        if info.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN}:
            self._events.put(_Answered(info.mid, mqtt.error_string(info.rc)))

    def _named(self, event: "Event | _Answered") -> Event | None:
        if not isinstance(event, _Answered):
            return event
        token = self._tokens.pop(event.mid, None)
        return None if token is None else Delivered(token, event.refused)

    def _on_connect(
        self,
        client: mqtt.Client,
        _data: object,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._events.put(Disconnected(f"the broker refused us: {reason}"))
            return
        self._connection += 1
        client.subscribe([(name, _QOS) for name in self._filters])
        self._events.put(Connected(flags.session_present))

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _data: object,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._events.put(Disconnected(str(reason)))

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        payload = bytes(message.payload)
        self._events.put(Message(topic, payload, message.mid, message.qos, self._connection))

    def _on_publish(
        self,
        _client: mqtt.Client,
        _data: object,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._events.put(_Answered(mid, str(reason) if reason.is_failure else None))


def find_protocol(
    config: MqttConfig, client_id: str, *, timeout_s: float = _PROBE_S
) -> Protocol | None:
    """Which protocol the broker speaks; None when it can not be reached now.

    A broker that only speaks 3.1.1 may refuse MQTT 5, close the connection or say nothing.
    """
    if config.protocol != "auto":
        return config.protocol
    client = _client(config, "5", f"{client_id}-probe", clean=True)
    answer: queue.SimpleQueue[Protocol | None] = queue.SimpleQueue()
    client.on_connect = lambda _c, _d, _f, reason, _p: answer.put(
        "3.1.1" if reason.is_failure else "5"
    )
    # Accepted, and then closed without an answer: it did not understand what we said.
    client.on_disconnect = lambda *_: answer.put("3.1.1")
    client.on_connect_fail = lambda *_: answer.put(None)
    _connect_async(client, config, "5", clean=True)
    client.loop_start()
    try:
        return answer.get(timeout=timeout_s)
    except queue.Empty:
        return "3.1.1"
    finally:
        client.disconnect()
        client.loop_stop()


def _client(config: MqttConfig, protocol: Protocol, client_id: str, *, clean: bool) -> mqtt.Client:
    mqtt5 = protocol == "5"
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if mqtt5 else clean,
        protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
        manual_ack=True,
    )
    if config.tls is not None:
        context = ssl.create_default_context(cafile=str(config.tls.ca))
        context.load_cert_chain(config.tls.certificate, config.tls.key)
        client.tls_set_context(context)
    return client


def _connect_async(
    client: mqtt.Client, config: MqttConfig, protocol: Protocol, *, clean: bool
) -> None:
    if protocol == "3.1.1":
        client.connect_async(config.host, config.port, keepalive=config.keepalive_s)
        return
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0 if clean else _SESSION_EXPIRY_S
    properties.ReceiveMaximum = _RECEIVE_MAXIMUM
    properties.MaximumPacketSize = _MAX_PACKET_BYTES
    client.connect_async(
        config.host,
        config.port,
        keepalive=config.keepalive_s,
        # Always False for a session: one that began clean does not survive a broker restart.
        clean_start=clean,
        properties=properties,
    )
