"""The controller process: takes in what devices say, and gives rollouts to devices.

It may be killed at any point. What it was told is acknowledged after it is stored, what it tells
is stored before it is published, and everything else is computed from the store.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from stoker_contract.codes import ReasonCode
from stoker_contract.topics import DeviceTopics
from stoker_fleet.config import FleetConfig, MqttConfig
from stoker_fleet.core.rollout import RolloutState, state_of
from stoker_fleet.errors import FleetError
from stoker_fleet.link import (
    Connected,
    Delivered,
    Disconnected,
    Event,
    Link,
    Message,
    find_protocol,
)
from stoker_fleet.lock import only_controller
from stoker_fleet.notify import ServiceManager
from stoker_fleet.observer import Asked, Observer, filters
from stoker_fleet.publisher import Publisher
from stoker_fleet.store import devices, rollouts
from stoker_fleet.store.rollouts import Document
from stoker_fleet.store.schema import Store
from stoker_trust.catalogue import Catalogue
from stoker_trust.director import Director
from stoker_trust.errors import TrustError
from stoker_trust.keys import open_keyring

log = structlog.get_logger()

CLIENT_ID: Final = "controller"
_TICK_S: Final = 0.2
_BROKER_RETRY_S: Final = 1.0
_REPOSITORY_RETRY_S: Final = 5.0
_PUBLISH_RETRY_S: Final = 5.0
_RENEW_EVERY_S: Final = 60.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Publication:
    """What a :class:`Delivered` is about."""

    device: str
    generation: int


@dataclass(frozen=True)
class _Clearing:
    """As :class:`_Publication`: one retained topic of a device that was forgotten."""

    device: str
    topic: str


class Controller:
    """One fleet, one store, one session at the broker."""

    def __init__(
        self,
        config: FleetConfig,
        store: Store,
        link: Link,
        *,
        manager: ServiceManager,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        keyring = open_keyring(config.keys)
        lifetime = timedelta(days=config.desired_lifetime_days)
        self._fleet = config.fleet
        self._store = store
        self._link = link
        self._manager = manager
        self._mqtt = config.mqtt
        self._connected = False
        self._now = now
        self._observer = Observer(config.fleet)
        releases = catalogue(config, CLIENT_ID)
        self._publisher = Publisher(config.fleet, Director(keyring), releases, lifetime)
        self._in_flight: set[_Publication] = set()
        self._clearing: set[_Clearing] = set()
        self._repository_retry_s = 0.0
        self._publish_retry_s = 0.0
        self._renew_at_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        self._link.start()
        try:
            while not stop.is_set():
                self.step()
        finally:
            self._manager.stopping()
            self._link.stop()

    def step(self) -> None:
        """Take in what came, then do what follows from the store."""
        events = self._link.take(_TICK_S)
        asked = self._take_in(events)
        if any(isinstance(event, Connected) and not event.session_present for event in events):
            # A broker that does not know our session may have lost what was retained, too.
            self._publish_latest(None)
        if asked:
            self._publish_latest([one.device for one in asked])
        self._clear_forgotten()
        self._assign()
        self._sign_again()
        self._publish_new()
        self._finish()
        self._manager.alive(_status(self._mqtt, connected=self._connected))

    def _take_in(self, events: Sequence[Event]) -> list[Asked]:
        messages = [event for event in events if isinstance(event, Message)]
        asked: list[Asked] = []
        if messages:
            with self._store.transaction() as session:
                for message in messages:
                    topic, payload = message.topic, message.payload
                    if one := self._observer.observe(session, topic, payload, self._now()):
                        asked.append(one)
            # Only now: the commit above is durable.
            for message in messages:
                self._link.acknowledge(message)
        for event in events:
            self._note(event)
        return asked

    def _note(self, event: Event) -> None:
        match event:
            case Connected():
                self._connected = True
                log.info("broker.connected", session_present=event.session_present)
            case Disconnected():
                self._connected = False
                log.warning("broker.disconnected", reason=event.reason)
            case Delivered(token=_Clearing() as clearing):
                self._cleared(clearing, event.refused)
            case Delivered(token=_Publication() as publication):
                self._in_flight.discard(publication)
                where = {"device": publication.device, "generation": publication.generation}
                if event.refused:
                    # Stays unpublished in the store, so it is tried again.
                    log.error("desired.refused", reason=event.refused, **where)
                    self._publish_retry_s = time.monotonic() + _PUBLISH_RETRY_S
                    return
                log.info("desired.published", **where)
                with self._store.transaction() as session:
                    rollouts.mark_published(
                        session, publication.device, publication.generation, self._now()
                    )

    def _clear_forgotten(self) -> None:
        if self._clearing or time.monotonic() < self._publish_retry_s:
            return
        with self._store.transaction() as session:
            names = devices.forgotten(session)
        for name in names:
            topics = DeviceTopics(self._fleet, name)
            for topic in (topics.desired, topics.reported, topics.presence):
                self._clearing.add(clearing := _Clearing(name, topic))
                self._link.publish(topic, b"", clearing, retain=True)

    def _cleared(self, clearing: _Clearing, refused: str | None) -> None:
        self._clearing.discard(clearing)
        if refused:  # stays in the store, so it is tried again
            log.error("device.not_cleared", device=clearing.device, reason=refused)
            self._publish_retry_s = time.monotonic() + _PUBLISH_RETRY_S
        elif clearing.device not in {left.device for left in self._clearing}:
            with self._store.transaction() as session:
                devices.cleared(session, clearing.device)
            log.info("device.forgotten", device=clearing.device)

    def _sign_again(self) -> None:
        now, now_s = self._now(), time.monotonic()
        with self._store.transaction() as session:
            self._publisher.take_back(session, now)
            if now_s >= self._renew_at_s:
                self._renew_at_s = now_s + _RENEW_EVERY_S
                self._publisher.renew(session, now)

    def _assign(self) -> None:
        if time.monotonic() < self._repository_retry_s:
            return
        with self._store.transaction() as session:
            waiting = rollouts.running(session)
        for rollout_id in waiting:
            try:
                with self._store.transaction() as session:
                    self._publisher.assign(session, rollout_id, self._now())
            except TrustError as error:
                where = {"rollout": rollout_id, "code": error.code, "detail": error.detail}
                log.warning("release.unreadable", **where)
                self._repository_retry_s = time.monotonic() + _REPOSITORY_RETRY_S

    def _publish_new(self) -> None:
        if time.monotonic() < self._publish_retry_s:
            return
        with self._store.transaction() as session:
            documents = rollouts.latest_documents(session, unpublished=True)
        self._publish(documents)

    def _publish_latest(self, devices: Sequence[str] | None) -> None:
        with self._store.transaction() as session:
            documents = rollouts.latest_documents(session, devices)
        self._publish(documents)

    def _publish(self, documents: Sequence[Document]) -> None:
        for document in documents:
            publication = _Publication(document.device, document.generation)
            if publication not in self._in_flight:
                self._in_flight.add(publication)
                topic = DeviceTopics(self._fleet, document.device).desired
                self._link.publish(topic, document.signed, publication, retain=True)

    def _finish(self) -> None:
        with self._store.transaction() as session:
            for rollout_id in rollouts.running(session):
                state = state_of(rollouts.view(session, rollout_id).devices)
                if state is not RolloutState.RUNNING:
                    rollouts.finish(session, rollout_id, state, self._now())
                    log.info("rollout.finished", rollout=rollout_id, state=state)


def run_controller(config: FleetConfig, stop: threading.Event) -> None:
    """Run the controller of a fleet until ``stop`` is set.

    Raises:
        FleetError: another controller works on the same database, or the keys are missing.
    """
    manager = ServiceManager()
    with only_controller(config.database):
        store = Store(config.database)
        try:
            open_keyring(config.keys)
            manager.ready()  # whatever becomes of the broker: that is waited for
            while (protocol := find_protocol(config.mqtt, CLIENT_ID)) is None:
                log.warning("broker.unreachable", host=config.mqtt.host, port=config.mqtt.port)
                manager.alive(_status(config.mqtt, connected=False))
                if stop.wait(_BROKER_RETRY_S):
                    return
            client_id = f"{CLIENT_ID}-{config.fleet}"
            link = Link(config.mqtt, protocol, client_id, filters(config.fleet))
            log.info("controller.started", fleet=config.fleet, protocol=protocol)
            Controller(config, store, link, manager=manager).run(stop)
        finally:
            store.close()


def _status(broker: MqttConfig, *, connected: bool) -> str:
    how = "connected to" if connected else "waits for"
    return f"{how} the broker at {broker.host}:{broker.port}"


def catalogue(config: FleetConfig, reader: str) -> Catalogue:
    """The releases that may be rolled out, as ``reader`` remembers them.

    Raises:
        FleetError: the image repository's root is not at hand.
    """
    anchor = config.keys / "trust" / "image-root.json"
    try:
        return Catalogue(config.repository, anchor.read_bytes(), config.cache / reader)
    except FileNotFoundError:
        hint = "Make keys and repository with: stoker key init --dev"
        raise FleetError(ReasonCode.ROOT_CHAIN, f"{anchor} is missing", hint=hint) from None
