"""A device that speaks the contract over real MQTT and decides at once how a deployment ends."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tuf.api.metadata import Metadata, Targets

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.desired import MEMBER, Desired
from stoker_contract.document import Document
from stoker_contract.histogram import Histogram
from stoker_contract.reported import Get, Presence, Reported, ReportedSlot
from stoker_contract.status import Measured, Phase, StatusEvent
from stoker_contract.target import Profile
from stoker_contract.telemetry import LatencyWindow, Telemetry
from stoker_contract.topics import DeviceTopics
from stoker_fleet.config import TlsConfig
from support.documents import PROFILE, TIME
from support.waiting import wait_until


@dataclass(frozen=True)
class Ending:
    """How a deployment ends on the device."""

    outcome: Outcome = Outcome.SUCCEEDED
    code: ReasonCode | None = None
    detail: str = ""


def succeed(_desired: Desired) -> Ending | None:
    """Take everything."""
    return Ending()


@dataclass
class SimulatedDevice:
    """One device. ``behave`` says how a deployment ends; None leaves it unfinished."""

    port: int
    device: str
    fleet: str = "demo"
    profile: Profile = PROFILE
    behave: Callable[[Desired], Ending | None] = succeed
    protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5
    tls: TlsConfig | None = None
    epoch: int = 1
    seq: int = 0
    received: list[tuple[int, Desired, bytes]] = field(default_factory=list)
    slots: dict[str, ReportedSlot] = field(default_factory=dict)
    generation: int = 0

    def __post_init__(self) -> None:
        self.topics = DeviceTopics(self.fleet, self.device)
        self._ready = threading.Event()
        self._lock = threading.RLock()
        mqtt5 = self.protocol is MQTTProtocolVersion.MQTTv5
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            self.device,
            clean_session=None if mqtt5 else False,
            protocol=self.protocol,
        )
        if self.tls is not None:
            context = ssl.create_default_context(cafile=str(self.tls.ca))
            context.load_cert_chain(self.tls.certificate, self.tls.key)
            self._client.tls_set_context(context)

    def start(self) -> Self:
        """Connect, be born, report, and take the desired state that is retained."""
        will = Presence(device=self.device, state="offline", epoch=self.epoch).encode()
        self._client.will_set(self.topics.presence, will, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        if self.protocol is MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 3600
            self._client.connect_async(
                "127.0.0.1", self.port, clean_start=False, properties=properties
            )
        else:
            self._client.connect_async("127.0.0.1", self.port)
        self._client.loop_start()
        assert self._ready.wait(10), "the simulated device did not connect"
        return self

    def stop(self) -> None:
        """Disconnect in order; the will is not sent."""
        self._client.disconnect()
        self._client.loop_stop()

    def vanish(self) -> None:
        """Lose the connection without a word, so that the broker sends the will."""
        self._client.loop_stop()
        socket = self._client.socket()
        if socket is not None:
            socket.close()

    def publish(self, topic: str, document: Document | bytes, *, retain: bool = False) -> None:
        """Publish and wait until the broker has it."""
        payload = document if isinstance(document, bytes) else document.encode()
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def reported(self) -> Reported:
        """What it would report now."""
        return Reported(
            device=self.device,
            fleet=self.fleet,
            epoch=self.epoch,
            seq=self._next(),
            observed_generation=self.generation,
            slots=self.slots,
            profile=self.profile,
            time=TIME,
        )

    def ask(self) -> None:
        """Ask for the desired state again."""
        self.publish(self.topics.get, Get(device=self.device, have_generation=self.generation))

    def send_latency(self, slot: str, digest: str, release: str, values_ms: list[float]) -> None:
        """Send one window of telemetry."""
        data = Histogram.of(int(value * 1e6) for value in values_ms).data()
        window = LatencyWindow(
            slot=slot, digest=digest, release=release, total=data, compute=data, queue=data,
            requests=len(values_ms),
        )  # fmt: skip
        telemetry = Telemetry(
            device=self.device, epoch=self.epoch, seq=self._next(), start=TIME, end=TIME,
            engines=(window,),
        )  # fmt: skip
        self.publish(self.topics.telemetry, telemetry)

    def wait_for_generation(self, generation: int) -> Desired:
        """Wait until a desired state arrived, and return it."""
        what = f"{self.device} gets generation {generation}"
        wait_until(lambda: any(g == generation for g, _, _ in self.received), what=what)
        return next(desired for g, desired, _ in self.received if g == generation)

    def event(  # passes on what a status event may have
        self,
        desired: Desired,
        generation: int,
        phase: Phase,
        **more: Any,  # noqa: ANN401
    ) -> StatusEvent:
        """A status event of a deployment."""
        return StatusEvent(
            device=self.device,
            deployment_id=desired.deployment_id,
            generation=generation,
            epoch=self.epoch,
            seq=self._next(),
            phase=phase,
            time=TIME,
            **more,
        )

    def _next(self) -> int:
        with self._lock:
            self.seq += 1
            return self.seq

    def _send(self, topic: str, document: Document, *, retain: bool = False) -> None:
        self._client.publish(topic, document.encode(), qos=1, retain=retain)

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        birth = Presence(device=self.device, state="online", epoch=self.epoch)
        self._send(self.topics.presence, birth, retain=True)
        self._send(self.topics.reported, self.reported(), retain=True)
        client.subscribe(self.topics.desired, qos=1)
        self._ready.set()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if not message.payload:  # what was retained is cleared
            return
        metadata = Metadata[Targets].from_bytes(bytes(message.payload))
        desired = Desired.from_member(metadata.signed.unrecognized_fields[MEMBER])
        generation = metadata.signed.version
        self.received.append((generation, desired, bytes(message.payload)))
        if generation <= self.generation:
            return
        self.generation = generation
        self._deploy(desired, generation)

    def _deploy(self, desired: Desired, generation: int) -> None:
        topic = self.topics.status(desired.deployment_id)
        for phase in (Phase.ACCEPTED, Phase.DOWNLOADING, Phase.GOLDEN):
            self._send(topic, self.event(desired, generation, phase))
        ending = self.behave(desired)
        if ending is None:
            return
        if ending.outcome is Outcome.SUCCEEDED:
            for name, slot in desired.slots.items():
                digest = slot.choices[0].artifact.digest
                self.slots[name] = ReportedSlot(active=digest, release=slot.release, ready=True)
        measured = Measured(golden_score=1.0, candidate_p99_ms=3.5, flip_us=40.0, dropped=0)
        final = self.event(
            desired,
            generation,
            Phase.IDLE,
            final=True,
            outcome=ending.outcome,
            code=ending.code,
            detail=ending.detail,
            measured=measured,
        )
        self._send(topic, final)
        self._send(self.topics.reported, self.reported(), retain=True)
