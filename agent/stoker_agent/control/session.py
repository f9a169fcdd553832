"""The session with the broker: kept for as long as the agent runs, whatever the network does.

Delivery by the broker is never the truth: it may acknowledge and then drop. What is wanted is
the retained ``desired``, asked for again and again; what was said is the outbox, which forgets a
message only when the broker has acknowledged it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol, TypeVar

import structlog

from stoker_agent.clock import Clock
from stoker_agent.config import Config
from stoker_agent.control.link import (
    MQTT_3_1_1,
    MQTT_5,
    Endpoint,
    Inbound,
    Link,
    LinkError,
    RefusedError,
    TlsFiles,
    Will,
)
from stoker_agent.core.backoff import Backoff
from stoker_agent.core.ports import Outbox, OutboxEntry
from stoker_agent.core.rate import TokenBucket
from stoker_agent.errors import JournalError
from stoker_contract.document import MAX_DOCUMENT_BYTES
from stoker_contract.errors import ContractError
from stoker_contract.reported import Get, Notice, Presence
from stoker_contract.topics import DeviceTopics

INBOX_SIZE: Final = 16
INTRODUCTION_S: Final = 30.0
OUTBOX_WINDOW: Final = 10
OUTBOX_POLL_S: Final = 30.0
MAX_MIN_RECONNECT_S: Final = 3600.0  # a notice is not signed: it may slow us down, not silence us
PULSE_S: Final = 1.0
PULSE_LIMIT_S: Final = 30.0

log: Final = structlog.get_logger("stoker.session")
T = TypeVar("T")


class OnNotice(Protocol):
    """What is called with a notice of the cloud."""

    def __call__(self, notice: Notice, /) -> None:
        """Heed it. Must not block."""
        ...


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How the session is kept.

    Attributes:
        protocol: ``auto``, ``5`` or ``3.1.1``.
        get_after_s: the retained desired state should have come by then, else it is asked for.
        reconcile_s: how often it is asked for anyway.
        desired_burst: documents that are looked at as fast as they come.
        desired_per_s: documents a second after that: each may cost requests to the repository.
        report_interval_s: reports are sent no faster than this.
        outbox_per_s: messages are sent no faster than this.
        disk_retry_s: how long a disk that takes no more is left alone.
    """

    endpoint: Endpoint
    protocol: str = "auto"
    base_s: float = 1.0
    cap_s: float = 300.0
    boot_jitter_s: float = 30.0
    get_after_s: float = 5.0
    reconcile_s: float = 300.0
    desired_burst: float = 10.0
    desired_per_s: float = 0.5
    report_interval_s: float = 0.5
    outbox_per_s: float = 50.0
    disk_retry_s: float = 5.0

    @classmethod
    def of(cls, config: Config) -> "SessionSettings":
        """The settings that ``agent.toml`` asks for."""
        mqtt, connection = config.mqtt, config.connection
        tls = TlsFiles(mqtt.tls.ca, mqtt.tls.certificate, mqtt.tls.key) if mqtt.tls else None
        return cls(
            endpoint=Endpoint(mqtt.host, mqtt.port, config.device.id, mqtt.keepalive_s, tls),
            protocol=mqtt.protocol,
            base_s=connection.base_s,
            cap_s=connection.cap_s,
            boot_jitter_s=connection.boot_jitter_s,
        )


class Session:
    """Keeps one session with the broker. ``run`` it in one task; the rest may be called freely.

    Attributes:
        counters: what happened, by name: ``connected``, ``lost``, ``dropped.size``, …
    """

    def __init__(  # noqa: PLR0913 - the wiring of the agent, all by keyword
        self,
        settings: SessionSettings,
        topics: DeviceTopics,
        *,
        epoch: int,
        outbox: Outbox,
        on_desired: Callable[[bytes], Awaitable[None]],
        on_notice: OnNotice,
        reported: Callable[[], bytes],
        clock: Clock,
        rng: Random,
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._epoch = epoch
        self._outbox = outbox
        self._on_desired = on_desired
        self._on_notice = on_notice
        self._reported = reported
        self._clock = clock
        self._rng = rng
        self._generation = generation
        self._protocol = MQTT_3_1_1 if settings.protocol == "3.1.1" else MQTT_5
        self._spoke_5 = False
        self._min_reconnect_s = 0.0
        self._inbox: asyncio.Queue[tuple[Link, Inbound]] = asyncio.Queue(INBOX_SIZE)
        self._report_wanted = asyncio.Event()
        self._outbox_kick = asyncio.Event()
        self._get_wanted = asyncio.Event()
        self._desired_came = asyncio.Event()
        self._pulse_at_s: float | None = None
        self._connected = False
        self._attempts = 0
        self.counters: Counter[str] = Counter()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and heard our birth message."""
        return self._connected

    def alive(self) -> bool:
        """Whether the session is being kept: connected, or trying to. For the watchdog."""
        if self._pulse_at_s is None:
            return False
        return self._clock.monotonic_s() - self._pulse_at_s < PULSE_LIMIT_S

    def request_report(self) -> None:
        """Publish the reported state soon; several requests become one report."""
        self._report_wanted.set()

    def kick_outbox(self) -> None:
        """There is something new in the outbox."""
        self._outbox_kick.set()

    async def run(self) -> None:
        """Keep the session until cancelled; then say goodbye."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pulse(), name="control.pulse")
                tasks.create_task(self._handle_desired(), name="control.desired")
                tasks.create_task(self._keep_connected(), name="control.connection")
        finally:
            self._pulse_at_s = None
            self._connected = False

    async def _pulse(self) -> None:
        while True:
            self._pulse_at_s = self._clock.monotonic_s()
            await asyncio.sleep(PULSE_S)

    async def _keep_connected(self) -> None:
        settings = self._settings
        backoff = Backoff(settings.base_s, settings.cap_s)
        await asyncio.sleep(self._rng.uniform(0.0, settings.boot_jitter_s))
        while True:
            lived_s = await self._attempt()
            backoff = backoff.ended(lived_s)
            delay_s = backoff.delay_s(self._rng, floor_s=self._min_reconnect_s)
            log.info("session.retry", delay_s=round(delay_s, 3), failures=backoff.failures)
            await asyncio.sleep(delay_s)

    async def _attempt(self) -> float:
        """Connect once and stay for as long as it lasts; returns how long that was, in seconds."""
        self._attempts += 1
        will = self._presence("offline")
        link = Link(self._settings.endpoint, self._protocol, will, self._received)
        try:
            await link.open()
        except LinkError as error:
            self._not_connected(error)
            return 0.0
        self._spoke_5 = self._spoke_5 or self._protocol == MQTT_5
        began_s = self._clock.monotonic_s()
        try:
            await self._serve(link)
        except* LinkError as lost:
            log.warning("session.lost", reason=_first(lost))
        except* RefusedError as refused:
            log.warning("session.refused", reason=_first(refused))
        except* Exception:  # a bug of ours costs a connection, never the agent
            self.counters["crashed"] += 1
            log.exception("session.crashed")
        finally:
            self._connected = False
            self.counters["lost"] += 1
            await link.close(farewell=will)
        if self._settings.protocol == "auto" and self._spoke_5:
            self._protocol = MQTT_5  # it was a broker in trouble, not an old one
        return self._clock.monotonic_s() - began_s

    def _not_connected(self, error: LinkError) -> None:
        self.counters["unreachable"] += 1
        log.warning("session.unreachable", reason=error.reason, protocol=self._protocol.name)
        if error.unanswered and self._settings.protocol == "auto":
            self._protocol = MQTT_3_1_1 if self._protocol == MQTT_5 else MQTT_5

    async def _serve(self, link: Link) -> None:
        self._desired_came.clear()
        self._get_wanted.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.wait_closed(), name="control.link")
            await self._introduce(link)
            self._connected = True
            self.counters["connected"] += 1
            log.info("session.connected", protocol=self._protocol.name, epoch=self._epoch)
            self.request_report()
            tasks.create_task(self._report(link), name="control.report")
            tasks.create_task(self._drain(link), name="control.outbox")
            tasks.create_task(self._reconcile(link), name="control.reconcile")

    async def _introduce(self, link: Link) -> None:
        birth = self._presence("online")
        try:
            async with asyncio.timeout(INTRODUCTION_S):
                await link.subscribe([self._topics.desired, self._topics.notice])
                await link.publish(birth.topic, birth.payload, retain=True)
        except TimeoutError:
            msg = "the broker answers neither SUBSCRIBE nor PUBLISH"
            raise LinkError(msg) from None

    def _presence(self, state: str) -> Will:
        value = {
            "device": self._topics.device,
            "state": state,
            "epoch": self._epoch,
            "connection": self._attempts,
        }
        return Will(self._topics.presence, Presence.model_validate(value).encode())

    # Incoming

    def _received(self, link: Link, message: Inbound) -> None:
        """Sort a message. Called for every packet, so it must be cheap and must not raise."""
        if len(message.payload) > MAX_DOCUMENT_BYTES:
            self._drop(link, message, "size")
        elif message.topic == self._topics.notice:
            self._heed(message.payload)
            link.acknowledge(message)
        elif message.topic != self._topics.desired:
            self._drop(link, message, "topic")
        elif self._inbox.full():
            self._drop(link, message, "flood")
            self._get_wanted.set()  # it may have been the right one
        else:
            self._desired_came.set()
            self._inbox.put_nowait((link, message))

    def _drop(self, link: Link, message: Inbound, why: str) -> None:
        self.counters[f"dropped.{why}"] += 1
        link.acknowledge(message)  # else it would come again for ever

    def _heed(self, payload: bytes) -> None:
        try:
            notice = Notice.parse(payload) if payload else Notice()
        except ContractError as error:
            self.counters["dropped.notice"] += 1
            log.warning("session.notice_refused", code=error.code, detail=error.detail)
            return
        self._min_reconnect_s = min(notice.min_reconnect_s, MAX_MIN_RECONNECT_S)
        try:
            self._on_notice(notice)
        except Exception:  # an unsigned message must not end the session
            self.counters["crashed"] += 1
            log.exception("session.notice_crashed")

    async def _handle_desired(self) -> None:
        """One document after the other, across connections: a flapping link must not starve us."""
        settings, clock = self._settings, self._clock
        bucket = TokenBucket.full(
            settings.desired_burst, settings.desired_per_s, clock.monotonic_s()
        )
        while True:
            link, message = await self._inbox.get()
            if message.payload:  # an empty one says that the retained message was cleared
                await asyncio.sleep(bucket.take(clock.monotonic_s()))
                try:
                    await self._on_desired(message.payload)
                except Exception:  # not acknowledged, so it comes again with the next connection
                    self.counters["crashed"] += 1
                    log.exception("session.desired_crashed")
                    continue
            link.acknowledge(message)

    # Outgoing

    async def _report(self, link: Link) -> None:
        while True:
            await self._report_wanted.wait()
            self._report_wanted.clear()
            payload = self._reported()
            if len(payload) > MAX_DOCUMENT_BYTES:
                self.counters["unsendable"] += 1
                log.error("session.report_too_large", length=len(payload))
            else:
                await self._publish(link, self._topics.reported, payload, retain=True)
            await asyncio.sleep(self._settings.report_interval_s)

    async def _reconcile(self, link: Link) -> None:
        try:
            async with asyncio.timeout(self._settings.get_after_s):
                await self._desired_came.wait()
        except TimeoutError:
            self._get_wanted.set()
        while True:
            wait_s = self._settings.reconcile_s * self._rng.uniform(0.5, 1.0)
            try:
                async with asyncio.timeout(wait_s):
                    await self._get_wanted.wait()
            except TimeoutError:
                pass
            self._get_wanted.clear()
            get = Get(
                device=self._topics.device,
                have_generation=self._generation(),
                token=f"{self._rng.getrandbits(64):016x}",
            )
            await self._publish(link, self._topics.get, get.encode())
            await asyncio.sleep(self._settings.get_after_s)

    async def _drain(self, link: Link) -> None:
        """Send the outbox in order, a window at a time. What is refused waits for another link."""
        refused: set[int] = set()
        while True:
            self._outbox_kick.clear()
            limit = OUTBOX_WINDOW + len(refused)
            pending = await self._on_disk(self._outbox.pending, limit)
            batch = [entry for entry in pending if entry.id not in refused]
            if batch:
                refused |= await self._send(link, batch)
                continue
            try:
                async with asyncio.timeout(OUTBOX_POLL_S):
                    await self._outbox_kick.wait()
            except TimeoutError:
                pass

    async def _send(self, link: Link, batch: list[OutboxEntry]) -> set[int]:
        """Send messages side by side, started in order; returns the ids that were refused."""
        refused: set[int] = set()

        async def send(entry: OutboxEntry) -> None:
            if len(entry.payload) > MAX_DOCUMENT_BYTES:
                # It can never be sent: the broker would drop the connection each time.
                self.counters["unsendable"] += 1
                log.error("session.message_too_large", topic=entry.topic, length=len(entry.payload))
            elif not await self._publish(link, entry.topic, entry.payload):
                refused.add(entry.id)
                return
            await self._on_disk(self._outbox.delivered, entry.id)

        async with asyncio.TaskGroup() as tasks:
            for entry in batch:
                tasks.create_task(send(entry), name="control.outbox.send")
                await asyncio.sleep(1 / self._settings.outbox_per_s)
        return refused

    async def _on_disk(self, step: Callable[[int], T], argument: int) -> T:
        """Work on the outbox. A full disk is waited for: sending again at once helps nobody."""
        while True:
            try:
                return await asyncio.to_thread(step, argument)
            except JournalError as error:
                self.counters["disk"] += 1
                log.warning("session.outbox_stuck", code=error.code, detail=error.detail)
            await asyncio.sleep(self._settings.disk_retry_s)

    async def _publish(
        self, link: Link, topic: str, payload: bytes, *, retain: bool = False
    ) -> bool:
        """Publish; False if the broker refuses this message."""
        try:
            await link.publish(topic, payload, retain=retain)
        except RefusedError as error:
            self.counters["refused"] += 1
            log.warning("session.refused", topic=topic, reason=str(error))
            return False
        return True


def _first(group: BaseExceptionGroup[Exception]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
