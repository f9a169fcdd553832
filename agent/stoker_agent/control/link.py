"""One connection to the broker, from CONNECT to its end. A link is never used twice.

paho keeps messages in memory and sends them later although it reported them as failed; a fresh
client for each connection has nothing to send. Its own network thread dies silently when a
callback raises, so there is none: the socket belongs to the event loop, and an error closes the
link, which somebody waits for.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from stoker_contract.document import MAX_DOCUMENT_BYTES

MQTT_5: Final = MQTTProtocolVersion.MQTTv5
MQTT_3_1_1: Final = MQTTProtocolVersion.MQTTv311
MAX_PACKET_BYTES: Final = MAX_DOCUMENT_BYTES + 4096  # a document, its topic and its properties
SESSION_EXPIRY_S: Final = 7 * 86_400
RECEIVE_MAXIMUM: Final = 16
TICK_S: Final = 1.0
UNSUPPORTED_PROTOCOL_VERSION: Final = 132
_FIRST: Final = asyncio.FIRST_COMPLETED


class LinkError(Exception):
    """The link could not be opened, or is gone.

    Attributes:
        unanswered: the broker took the connection and did not understand the CONNECT; another
            version of the protocol may work.
    """

    def __init__(self, reason: str, *, unanswered: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unanswered = unanswered


class RefusedError(Exception):
    """The broker answered a message with a failure; the link is fine."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the link is lost."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files of the mutual TLS connection."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """A client context; read anew for each connection, so that renewed files are used.

        Raises:
            OSError: a file is missing or no certificate.
        """
        context = ssl.create_default_context(cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is, and who we are there."""

    host: str
    port: int
    client_id: str
    keepalive_s: int
    tls: TlsFiles | None
    connect_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message that arrived; ``mid`` is needed to acknowledge it."""

    topic: str
    payload: bytes
    mid: int
    qos: int


class _BoundedClient(paho.Client):
    """paho, which would read a packet of 256 MiB if the broker sent one."""

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._in_packet["remaining_length"] > MAX_PACKET_BYTES:
            msg = "the broker sends a packet that is too large"
            raise ConnectionError(msg)
        if len(self._in_messages) > RECEIVE_MAXIMUM:
            msg = "the broker begins more QoS 2 messages than it finishes"
            raise ConnectionError(msg)
        return super()._sock_recv(bufsize)


class Link:
    """One connection. Everything but the blocking connect happens on the event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        protocol: MQTTProtocolVersion,
        will: Will,
        on_message: Callable[["Link", Inbound], None],
    ) -> None:
        self._endpoint = endpoint
        self._protocol = protocol
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._connack: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._answers: dict[tuple[str, int], asyncio.Future[list[ReasonCode]]] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._client = self._new_client(will)

    @property
    def is_open(self) -> bool:
        """Whether the link was accepted and is not gone."""
        return self._connack.done() and not self._ended.done()

    async def open(self) -> None:
        """Connect, and wait until the broker has accepted.

        Raises:
            LinkError: it did not.
        """
        try:
            await asyncio.to_thread(self._connect)
        except (OSError, ValueError) as error:
            reason = f"can not connect: {error}"
            raise self._end(reason) from None
        except asyncio.CancelledError:
            self._end("cancelled")
            raise
        self._ticker = asyncio.create_task(self._tick(), name="control.link.tick")
        limit_s = self._endpoint.connect_timeout_s
        await asyncio.wait((self._connack, self._ended), timeout=limit_s, return_when=_FIRST)
        if not self._connack.done():
            end = self._end(f"no CONNACK within {limit_s} s")
            raise LinkError(end.reason, unanswered=True)
        answer = self._connack.result()
        if answer.is_failure:
            end = self._end(f"refused: {answer}")
            unanswered = answer.value == UNSUPPORTED_PROTOCOL_VERSION
            raise LinkError(end.reason, unanswered=unanswered)

    async def wait_closed(self) -> None:
        """Wait for the end of the link.

        Raises:
            LinkError: always; it tells why.
        """
        raise LinkError(await asyncio.shield(self._ended))

    async def subscribe(self, topics: list[str]) -> None:
        """Subscribe with QoS 1.

        Raises:
            LinkError: the link is gone.
            RefusedError: the broker refuses one of them.
        """
        if self._protocol == MQTT_5:
            wanted: Any = [(topic, SubscribeOptions(qos=1)) for topic in topics]
        else:
            wanted = [(topic, 1) for topic in topics]
        status, mid = self._client.subscribe(wanted)
        await self._answered("subscribe", status, mid)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1 and wait for the acknowledgement.

        Raises:
            LinkError: the link is gone; whether the broker has it is unknown.
            RefusedError: the broker refuses it.
        """
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        await self._answered("publish", info.rc, info.mid)

    def acknowledge(self, message: Inbound) -> None:
        """Tell the broker that a message is durable; without a link it will come again."""
        if self.is_open:
            self._client.ack(message.mid, message.qos)

    async def close(self, *, farewell: Will | None = None, timeout_s: float = 2.0) -> None:
        """End the link. With ``farewell`` it is published first and the last will is discarded."""
        if farewell is not None and self.is_open:
            with suppress(LinkError, RefusedError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.publish(farewell.topic, farewell.payload, retain=True)
                    self._client.disconnect()
                    await asyncio.shield(self._ended)
        self._end("closed")

    def _new_client(self, will: Will) -> paho.Client:
        legacy = None if self._protocol == MQTT_5 else False
        client = _BoundedClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._endpoint.client_id,
            protocol=self._protocol,
            clean_session=legacy,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.suppress_exceptions = True
        client.connect_timeout = self._endpoint.connect_timeout_s
        client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_socket_open = lambda _c, _u, sock: self._soon(self._watch, sock)
        client.on_socket_register_write = lambda _c, _u, sock: self._soon(
            self._watch_writable, sock
        )
        client.on_socket_unregister_write = lambda _c, _u, sock: self._unwatch_writable(sock)
        client.on_socket_close = lambda _c, _u, sock: self._forget(sock)
        client.on_connect = lambda _c, _u, _flags, reason, _p: self._connected(reason)
        client.on_disconnect = lambda _c, _u, _flags, reason, _p: self._disconnected(reason)
        client.on_publish = lambda _c, _u, mid, reason, _p: self._answer("publish", mid, [reason])
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._answer(
            "subscribe", mid, reasons
        )
        client.on_message = lambda _c, _u, message: self._received(message)
        return client

    def _connect(self) -> None:
        """Block until the TCP and TLS handshakes are done. Runs in a thread."""
        if self._endpoint.tls is not None:
            self._client.tls_set_context(self._endpoint.tls.context())
        where = (self._endpoint.host, self._endpoint.port, self._endpoint.keepalive_s)
        if self._protocol == MQTT_5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            # Never a clean start: a broker forgets such a session when it restarts itself.
            self._client.connect(*where, clean_start=False, properties=properties)
        else:
            self._client.connect(*where)
        if self._ended.done():  # given up while the handshake went on
            self._drop_socket()

    # What the event loop and paho call. Each of these only notes what happened.

    def _soon(self, call: Callable[[Any], None], sock: Any) -> None:  # noqa: ANN401 - paho's SocketLike
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(call, sock)

    def _watch(self, sock: Any) -> None:  # noqa: ANN401 - as above
        if not self._ended.done() and sock.fileno() >= 0:
            self._loop.add_reader(sock, self._readable)

    def _watch_writable(self, sock: Any) -> None:  # noqa: ANN401 - as above
        if not self._ended.done() and sock.fileno() >= 0:
            self._loop.add_writer(sock, self._guarded, self._client.loop_write)

    def _unwatch_writable(self, sock: Any) -> None:  # noqa: ANN401 - as above
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock)

    def _forget(self, sock: Any) -> None:  # noqa: ANN401 - as above
        if sock.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)

    def _readable(self) -> None:
        self._guarded(self._client.loop_read)
        sock = self._client.socket()
        if isinstance(sock, ssl.SSLSocket) and sock.pending() and not self._ended.done():
            # Already decrypted bytes do not make a socket readable.
            self._loop.call_soon(self._readable)

    def _guarded(self, step: Callable[[], MQTTErrorCode]) -> None:
        if self._ended.done():
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever a packet provokes ends this link only
            self._end(f"{type(error).__name__}: {error}")

    async def _tick(self) -> None:
        while not self._ended.done():
            self._guarded(self._client.loop_misc)
            await asyncio.sleep(TICK_S)

    def _connected(self, reason: ReasonCode) -> None:
        if not self._connack.done():
            self._connack.set_result(reason)

    def _disconnected(self, reason: ReasonCode) -> None:
        self._end(str(reason))

    def _received(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._on_message(self, Inbound(topic, bytes(message.payload), message.mid, message.qos))

    async def _answered(self, kind: str, status: MQTTErrorCode, mid: int | None) -> None:
        if status != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None or self._ended.done():
            msg = f"can not {kind}: {paho.error_string(status)}"
            raise LinkError(msg)
        answer = self._answers.setdefault((kind, mid), self._loop.create_future())
        try:
            refused = [reason for reason in await answer if reason.is_failure]
        finally:
            self._answers.pop((kind, mid), None)
        if refused:
            msg = f"{kind} refused: {refused[0]}"
            raise RefusedError(msg)

    def _answer(self, kind: str, mid: int, reasons: list[ReasonCode]) -> None:
        answer = self._answers.get((kind, mid))
        if answer is not None and not answer.done():
            answer.set_result(reasons)

    def _end(self, reason: str) -> LinkError:
        """Close the link, the first time, and say why it was closed."""
        if not self._ended.done():
            self._ended.set_result(reason)
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(LinkError(reason))
            if self._ticker is not None:
                self._ticker.cancel()
            self._drop_socket()
        return LinkError(self._ended.result())

    def _drop_socket(self) -> None:
        # Without DISCONNECT, so that the broker publishes the last will.
        sock = self._client.socket()
        if sock is not None:
            self._forget(sock)
            sock.close()
