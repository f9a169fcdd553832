"""The session against a real broker."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from structlog.testing import capture_logs

from stoker_agent.clock import SystemClock
from stoker_agent.control.link import MQTT_5, Endpoint, Link, TlsFiles, Will
from stoker_agent.control.session import Session, SessionSettings
from stoker_agent.core.ports import OutboxEntry
from stoker_agent.errors import JournalError
from stoker_cli.broker.ports import free_port
from stoker_contract.codes import ReasonCode
from stoker_contract.document import MAX_DOCUMENT_BYTES
from stoker_contract.reported import Get, Notice, Presence
from stoker_contract.topics import DeviceTopics
from support.mosquitto import (
    Mosquitto,
    Observer,
    listens,
    make_certificates,
    running_mosquitto,
)
from support.waiting import eventually, wait_until

TOPICS = DeviceTopics("demo", "edge-1")


@dataclass
class MemoryOutbox:
    """An outbox without a disk."""

    entries: dict[int, OutboxEntry] = field(default_factory=dict)
    next_id: int = 1

    def put(self, topic: str, payload: bytes) -> None:
        """Add a message."""
        self.entries[self.next_id] = OutboxEntry(self.next_id, topic, payload)
        self.next_id += 1

    def pending(self, limit: int) -> Sequence[OutboxEntry]:
        """The oldest messages."""
        return list(self.entries.values())[:limit]

    def delivered(self, entry_id: int) -> None:
        """Forget one."""
        del self.entries[entry_id]

    def depth(self) -> int:
        """How many wait."""
        return len(self.entries)


@dataclass
class StuckOutbox(MemoryOutbox):
    """An outbox on a disk that takes nothing while ``full``."""

    full: bool = True

    def delivered(self, entry_id: int) -> None:
        """Forget one, if there is room to write that."""
        if self.full:
            raise JournalError(ReasonCode.DISK_SPACE, "the disk is full")
        super().delivered(entry_id)


@dataclass
class Device:
    """What the session calls, and what it was told."""

    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    desired: list[bytes] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    on_desired: Callable[[bytes], Awaitable[None]] | None = None
    reports: int = 0

    async def desire(self, payload: bytes) -> None:
        """Note a desired state."""
        self.desired.append(payload)
        if self.on_desired is not None:
            await self.on_desired(payload)

    def report(self) -> bytes:
        """Count a report."""
        self.reports += 1
        return f"report {self.reports}".encode()

    def session(self, port: int, *, tls: TlsFiles | None = None, **settings: object) -> Session:
        """A session of this device that does not wait for long."""
        values = {
            "base_s": 0.05,
            "cap_s": 0.2,
            "boot_jitter_s": 0.0,
            "get_after_s": 0.2,
            "desired_per_s": 1000.0,
            "report_interval_s": 0.01,
            "outbox_per_s": 1000.0,
            "disk_retry_s": 0.02,
            **settings,
        }
        endpoint = Endpoint("127.0.0.1", port, TOPICS.device, 5, tls, connect_timeout_s=2.0)
        return Session(
            SessionSettings(endpoint, **values),  # type: ignore[arg-type]
            TOPICS,
            epoch=7,
            outbox=self.outbox,
            on_desired=self.desire,
            on_notice=self.notices.append,
            reported=self.report,
            clock=SystemClock(),
            rng=Random(1),  # noqa: S311 - jitter, not a secret
            generation=lambda: 41,
        )


@asynccontextmanager
async def kept(session: Session) -> AsyncIterator[Session]:
    """A session that is being kept inside the block."""
    task = asyncio.create_task(session.run())
    try:
        yield session
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def presence(observer: Observer) -> list[tuple[str, int]]:
    """The births and deaths an observer heard of."""
    heard = [Presence.parse(payload) for payload in observer.payloads(TOPICS.presence)]
    return [(each.state, each.epoch) for each in heard]


def test_a_retained_desired_state_reaches_the_device(tmp_path: Path) -> None:
    """On connecting, the device says that it is there, reports, and gets what was retained."""

    async def story() -> None:
        device = Device()
        async with kept(device.session(broker.port)) as session:
            await eventually(lambda: device.desired == [b"desired 1"], "desired arrives")
            await eventually(lambda: observer.payloads(TOPICS.reported), "reported is published")
            assert session.connected
            assert session.alive()
        await eventually(lambda: len(presence(observer)) == 2, "presence is taken back")
        assert presence(observer) == [("online", 7), ("offline", 7)]
        assert not session.alive()

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        observer.publish(TOPICS.desired, b"desired 1", retain=True)
        asyncio.run(story())


def test_mutual_tls_is_spoken(tmp_path: Path) -> None:
    """With certificates, the device proves who it is, and delivery works over TLS."""
    certificates = make_certificates(tmp_path / "pki", TOPICS.device)
    files = TlsFiles(certificates.ca, certificates.client_certificate, certificates.client_key)
    big = b"x" * (MAX_DOCUMENT_BYTES - 1)

    async def story() -> None:
        device = Device()
        async with kept(device.session(broker.port, tls=files)):
            await eventually(lambda: device.desired == [big], "desired arrives")

    with (
        running_mosquitto(tmp_path / "broker", certificates=certificates) as broker,
        Observer(broker.port, certificates=certificates) as observer,
    ):
        observer.publish(TOPICS.desired, big, retain=True)
        asyncio.run(story())


def test_an_impostor_of_the_broker_is_not_spoken_to(tmp_path: Path) -> None:
    """A broker whose certificate another CA has signed gets neither a name nor a message."""
    ours = make_certificates(tmp_path / "ours", TOPICS.device)
    theirs = make_certificates(tmp_path / "theirs", TOPICS.device)
    files = TlsFiles(ours.ca, theirs.client_certificate, theirs.client_key)

    async def story() -> None:
        session = Device().session(broker.port, tls=files)
        async with kept(session):
            await eventually(lambda: session.counters["unreachable"] > 2, "it tries again")
        assert session.counters["connected"] == 0

    with (
        running_mosquitto(tmp_path / "broker", certificates=theirs) as broker,
        Observer(broker.port, certificates=theirs) as observer,
    ):
        asyncio.run(story())
        assert observer.heard == []


def test_a_missing_certificate_is_only_a_failed_attempt(tmp_path: Path) -> None:
    """A certificate that is not there yet is looked for again with every attempt."""
    certificates = make_certificates(tmp_path / "pki", TOPICS.device)
    late = TlsFiles(certificates.ca, tmp_path / "late.crt", tmp_path / "late.key")

    async def story() -> None:
        device = Device()
        async with kept(device.session(broker.port, tls=late)) as session:
            await eventually(lambda: session.counters["unreachable"] > 1, "it tries again")
            late.key.write_bytes(certificates.client_key.read_bytes())
            late.certificate.write_bytes(certificates.client_certificate.read_bytes())
            await eventually(lambda: session.connected, "it connects with the new files")

    with running_mosquitto(tmp_path / "broker", certificates=certificates) as broker:
        asyncio.run(story())


def test_a_message_is_acknowledged_only_when_it_is_durable(tmp_path: Path) -> None:
    """A device that dies while it handles a message gets the message again."""

    async def dies_while_handling() -> None:
        device = Device()
        started = asyncio.Event()

        async def never_durable(_payload: bytes) -> None:
            started.set()
            await asyncio.Event().wait()

        device.on_desired = never_durable
        async with kept(device.session(broker.port)):
            await eventually(lambda: presence(observer), "it is online")
            # Not retained: only the broker's session can bring it back.
            observer.publish(TOPICS.desired, b"once")
            await started.wait()

    async def comes_back() -> None:
        device = Device()
        async with kept(device.session(broker.port)):
            await eventually(lambda: device.desired == [b"once"], "it comes again")
        again = Device()
        async with kept(again.session(broker.port)):
            await eventually(lambda: observer.payloads(TOPICS.get), "connected for a while")
        assert again.desired == []

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(dies_while_handling())
        asyncio.run(comes_back())


def test_a_full_disk_neither_ends_the_session_nor_floods_the_broker(tmp_path: Path) -> None:
    """What was delivered and can not be forgotten is not sent over and over; later it is."""

    async def story(broker: Mosquitto) -> None:
        outbox = StuckOutbox()
        outbox.put(TOPICS.telemetry, b"once")
        async with kept(Device(outbox=outbox).session(broker.port)) as session:
            await eventually(lambda: session.counters["disk"] > 3, "it was tried a few times")
            assert session.connected
            outbox.full = False
            await eventually(lambda: outbox.depth() == 0, "it is forgotten")
            assert session.counters["connected"] == 1

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(story(broker))
        assert observer.payloads(TOPICS.telemetry) == [b"once"]


def test_a_killed_broker_costs_nothing_but_time(tmp_path: Path) -> None:
    """The outbox waits for the broker to come back and is then delivered in order, all of it."""
    topic = TOPICS.status("rollout-1")

    async def story(broker: Mosquitto) -> None:
        device = Device()
        device.outbox.put(topic, b"0")
        async with kept(device.session(broker.port)) as session:
            await eventually(lambda: device.outbox.depth() == 0, "the first is delivered")
            broker.kill()
            await eventually(lambda: not session.connected, "the loss is noticed")
            for number in range(1, 26):
                device.outbox.put(topic, str(number).encode())
            session.kick_outbox()
            await eventually(lambda: session.counters["unreachable"] > 1, "it keeps trying")
            assert device.outbox.depth() == 25
            broker.start()
            with Observer(broker.port) as observer:
                await eventually(lambda: device.outbox.depth() == 0, "the rest is delivered")
                assert observer.payloads(topic) == [str(n).encode() for n in range(1, 26)]
            assert session.counters["connected"] == 2

    with running_mosquitto(tmp_path) as broker:
        asyncio.run(story(broker))


def test_a_message_queued_by_the_broker_survives_the_brokers_restart(tmp_path: Path) -> None:
    """The session is resumed, not begun anew: what was sent while we were away still comes."""

    async def once() -> None:
        async with kept(Device().session(broker.port)) as session:
            await eventually(lambda: session.connected, "it connects")

    async def later() -> None:
        device = Device()
        async with kept(device.session(broker.port)):
            await eventually(lambda: device.desired == [b"while away"], "the message comes")

    with running_mosquitto(tmp_path) as broker:
        asyncio.run(once())
        with Observer(broker.port) as observer:
            observer.publish(TOPICS.desired, b"while away")
        broker.stop()
        broker.start()
        asyncio.run(later())


def test_a_frozen_broker_is_given_up(tmp_path: Path) -> None:
    """A broker that keeps the connection and answers nothing is noticed by the keepalive."""

    async def story() -> None:
        async with kept(Device().session(broker.port)) as session:
            await eventually(lambda: session.connected, "it connects")
            broker.freeze()
            await eventually(lambda: session.counters["lost"], "it is given up", timeout_s=30.0)
            assert session.alive()

    with running_mosquitto(tmp_path) as broker:
        asyncio.run(story())


def test_the_last_will_tells_of_a_death(tmp_path: Path) -> None:
    """A device that vanishes without a word is reported offline by the broker, retained."""

    async def story() -> None:
        endpoint = Endpoint("127.0.0.1", broker.port, TOPICS.device, 5, None)
        will = Will(TOPICS.presence, b"last will")
        link = Link(endpoint, MQTT_5, will, lambda _link, _message: None)
        await link.open()
        assert observer.payloads(TOPICS.presence) == []
        await link.close()  # the socket is closed, as by a power cut
        await eventually(lambda: observer.payloads(TOPICS.presence) == [will.payload], "the will")

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(story())
        with Observer(broker.port) as late:
            wait_until(lambda: late.payloads(TOPICS.presence) == [b"last will"])


def test_a_second_device_with_the_same_name_only_costs_reconnects(tmp_path: Path) -> None:
    """Thrown out by its double, a session comes back with a growing delay."""

    async def story() -> None:
        session = Device().session(broker.port)
        async with kept(session):
            await eventually(lambda: session.connected, "it connects")
            double = Device().session(broker.port)
            async with kept(double):
                await eventually(lambda: double.counters["connected"], "the double connects")
                await eventually(lambda: session.counters["lost"], "the first is thrown out")
            await eventually(lambda: session.connected, "the first is back")
            assert session.counters["crashed"] == 0

    with running_mosquitto(tmp_path) as broker:
        asyncio.run(story())


def test_a_desired_state_that_does_not_come_is_asked_for(tmp_path: Path) -> None:
    """Without a retained message the device asks, and says what it has."""

    async def story() -> None:
        async with kept(Device().session(broker.port, reconcile_s=0.1)):
            await eventually(lambda: len(observer.payloads(TOPICS.get)) >= 2, "it asks and repeats")
        first = Get.parse(observer.payloads(TOPICS.get)[0])
        assert (first.device, first.have_generation) == (TOPICS.device, 41)

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(story())


def test_poisoned_messages_are_dropped_and_counted(tmp_path: Path) -> None:
    """Too large, cleared and malformed messages change nothing, and what is good still comes."""

    async def story() -> None:
        device = Device()
        session = device.session(broker.port, protocol="3.1.1")
        async with kept(session):
            await eventually(lambda: session.connected, "it connects")
            observer.publish(TOPICS.desired, b"x" * (MAX_DOCUMENT_BYTES + 1))
            observer.publish(TOPICS.desired, b"")
            observer.publish(TOPICS.notice, b"{")
            observer.publish(TOPICS.desired, b"good")
            await eventually(lambda: device.desired == [b"good"], "the good one comes")
        assert session.counters["dropped.size"] == 1
        assert session.counters["dropped.notice"] == 1
        assert session.counters["lost"] == 1

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(story())


def test_a_huge_packet_ends_the_link_before_it_is_read(tmp_path: Path) -> None:
    """A broker can not make the device buffer megabytes."""

    async def story() -> None:
        device = Device()
        session = device.session(broker.port, protocol="3.1.1")
        async with kept(session):
            await eventually(lambda: session.connected, "it connects")
            observer.publish(TOPICS.desired, b"x" * 8_000_000)
            await eventually(lambda: session.counters["lost"], "the link is ended")
        assert device.desired == []

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(story())


def test_a_flood_is_bounded_and_answered_with_a_question(tmp_path: Path) -> None:
    """More messages than fit are dropped with a count, and the truth is asked for again."""

    async def story() -> None:
        device = Device()
        gate = asyncio.Event()

        async def slow(_payload: bytes) -> None:
            await gate.wait()

        device.on_desired = slow
        session = device.session(broker.port, protocol="3.1.1")
        async with kept(session):
            await eventually(lambda: observer.payloads(TOPICS.get), "connected, nothing retained")
            asked = len(observer.payloads(TOPICS.get))
            for number in range(60):
                observer.publish(TOPICS.desired, str(number).encode())
            await eventually(lambda: session.counters["dropped.flood"], "some are dropped")
            await eventually(lambda: len(observer.payloads(TOPICS.get)) > asked, "it asks")
            gate.set()
            await eventually(lambda: len(device.desired) >= 17, "the others are handled")

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(story())


def test_an_error_in_a_callback_does_not_end_the_session(tmp_path: Path) -> None:
    """A bug that one message provokes costs that message, never the session."""

    async def story() -> None:
        device = Device()

        async def fails(payload: bytes) -> None:
            if payload == b"bad":
                msg = "a bug"
                raise RuntimeError(msg)

        device.on_desired = fails
        session = device.session(broker.port)
        async with kept(session):
            await eventually(lambda: session.connected, "it connects")
            observer.publish(TOPICS.desired, b"bad")
            observer.publish(TOPICS.desired, b"good")
            await eventually(lambda: device.desired == [b"bad", b"good"], "the next is handled")
            assert session.alive()
            assert session.counters["crashed"] == 1
            assert session.counters["lost"] == 0

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(story())


def test_a_notice_is_heeded(tmp_path: Path) -> None:
    """What the cloud says to all devices arrives."""

    async def story() -> None:
        device = Device()
        async with kept(device.session(broker.port)):
            await eventually(lambda: device.notices == [notice], "the notice arrives")

    notice = Notice(min_reconnect_s=0.25, pause_updates=True)
    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        observer.publish(TOPICS.notice, notice.encode(), retain=True)
        asyncio.run(story())


def test_what_can_not_be_sent_does_not_block_what_can(tmp_path: Path) -> None:
    """A message beyond the size limit is given up with a count; the next one is delivered."""

    async def story() -> None:
        device = Device()
        device.outbox.put(TOPICS.telemetry, b"x" * (MAX_DOCUMENT_BYTES + 1))
        device.outbox.put(TOPICS.telemetry, b"fits")
        session = device.session(broker.port)
        async with kept(session):
            await eventually(lambda: device.outbox.depth() == 0, "the outbox is empty")
            await eventually(lambda: observer.payloads(TOPICS.telemetry) == [b"fits"], "it arrives")
        assert session.counters["unsendable"] == 1

    with running_mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        asyncio.run(story())


def test_a_broker_that_knows_only_3_1_1_is_spoken_to(tmp_path: Path) -> None:
    """A broker that never answers an MQTT 5 CONNECT is tried again with the older protocol."""
    port = free_port()
    command = [sys.executable, "-m", "stoker_cli.broker.in_process", str(port)]

    async def story() -> None:
        device = Device()
        device.outbox.put(TOPICS.telemetry, b"spooled")
        with Observer(port) as observer:
            observer.publish(TOPICS.desired, b"desired", retain=True)
            async with kept(device.session(port)) as session:
                await eventually(lambda: device.desired, "desired arrives", timeout_s=30.0)
                await eventually(lambda: device.outbox.depth() == 0, "the outbox is drained")
                assert session.counters["unreachable"] >= 1
            assert observer.payloads(TOPICS.telemetry) == [b"spooled"]

    with (tmp_path / "broker.log").open("wb") as log:
        broker = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), what="the broker listens")
        asyncio.run(story())
    finally:
        broker.terminate()
        broker.wait(timeout=10)


def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """A device that boots before its broker connects when the broker comes."""

    async def story() -> None:
        broker = Mosquitto(tmp_path)
        try:
            async with kept(Device().session(broker.port)) as session:
                await eventually(lambda: session.counters["unreachable"] > 2, "it keeps trying")
                assert session.alive()
                broker.start()
                await eventually(lambda: session.connected, "it connects")
        finally:
            broker.stop()

    asyncio.run(story())


def test_the_cloud_can_slow_a_reconnect_down(tmp_path: Path) -> None:
    """After a notice no attempt comes earlier than it says."""

    async def story(broker: Mosquitto) -> None:
        device = Device()
        session = device.session(broker.port)
        async with kept(session):
            await eventually(lambda: device.notices, "the notice arrives")
            broker.kill()
            await eventually(lambda: not session.connected, "the loss is noticed")
            broker.start()
            await eventually(lambda: session.connected, "it comes back")

    with running_mosquitto(tmp_path) as broker, capture_logs() as logged:
        with Observer(broker.port) as observer:
            observer.publish(TOPICS.notice, Notice(min_reconnect_s=1.0).encode(), retain=True)
        asyncio.run(story(broker))
    delays_s = [entry["delay_s"] for entry in logged if entry["event"] == "session.retry"]
    assert delays_s
    assert all(1.0 <= delay_s <= 1.2 for delay_s in delays_s)


def test_refused_messages_wait_for_another_connection(tmp_path: Path) -> None:
    """What the broker's access list forbids stays in the outbox and blocks nothing else."""
    access = tmp_path / "acl"
    access.write_text(
        f"topic readwrite {TOPICS.root}/#\ntopic deny {TOPICS.telemetry}\ntopic read #\n"
    )

    async def story(broker: Mosquitto, observer: Observer) -> None:
        device = Device()
        for number in range(15):
            device.outbox.put(TOPICS.telemetry, str(number).encode())
        device.outbox.put(TOPICS.status("d-1"), b"allowed")
        session = device.session(broker.port, protocol="5")
        async with kept(session):
            await eventually(lambda: device.outbox.depth() == 15, "the allowed one is delivered")
            await eventually(lambda: observer.payloads(TOPICS.status("d-1")), "and heard")
        assert session.counters["refused"] == 15
        assert session.counters["lost"] == 1

    with (
        running_mosquitto(tmp_path / "broker", lines=f"acl_file {access}\n") as broker,
        Observer(broker.port) as observer,
    ):
        asyncio.run(story(broker, observer))
