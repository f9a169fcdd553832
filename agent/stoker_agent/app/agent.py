"""Wires the parts of the agent together, and owns every task of the process."""

import asyncio
import fcntl
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from stoker_agent.app.config_watch import ConfigWatch
from stoker_agent.app.deployer import Deployer
from stoker_agent.app.effects import Effects
from stoker_agent.app.engine_effects import EngineEffects
from stoker_agent.app.notify import Notifier
from stoker_agent.app.probation import ProbationWatch
from stoker_agent.app.reporter import Reporter
from stoker_agent.app.run import Tuning
from stoker_agent.app.server_child import ServerChild, server_command
from stoker_agent.app.server_watch import ServerWatch
from stoker_agent.app.wishes import Wishes
from stoker_agent.artifacts.download import Downloader
from stoker_agent.clock import SystemClock
from stoker_agent.config import Config
from stoker_agent.control.session import Session, SessionSettings
from stoker_agent.engines.control_client import ControlClient
from stoker_agent.errors import ConfigError, JournalError
from stoker_agent.host.figures import Machine
from stoker_agent.host.profile import detect_profile
from stoker_agent.state import durable
from stoker_agent.state.journal import Journal
from stoker_agent.state.slots import SlotFiles
from stoker_agent.state.store import BlobStore
from stoker_agent.telemetry.uplink import Uplink
from stoker_agent.trust.verifier import TrustSettings, Verifier
from stoker_contract.reported import Notice
from stoker_contract.topics import DeviceTopics

CONTROL_SOCKET: Final = "control.sock"
JOURNAL: Final = "state.db"
STARTING_S: Final = 30.0
DISK_RETRY_S: Final = 5.0

log: Final = structlog.get_logger("stoker.agent")


class _StopError(Exception):
    """The service manager asked the agent to end."""


class Agent:
    """The agent process. Build it, then ``run`` it once."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        *,
        path: Path,
        with_server: bool,
        stopped_in_order: bool,
    ) -> None:
        clock, tuning, rng = SystemClock(), Tuning(), random.Random()  # noqa: S311 - jitter
        state_dir, run_dir = config.paths.state_dir, config.paths.run_dir
        topics = DeviceTopics(fleet=config.device.fleet, device=config.device.id)
        host = Machine(detect_profile(config.device.labels), state_dir)
        slots, store = SlotFiles(state_dir / "slots"), BlobStore(state_dir)
        self.journal = journal
        self.server = ControlClient(run_dir / CONTROL_SOCKET)
        self.reporter = Reporter(topics, journal, slots, host, clock)
        engines = EngineEffects(slots, store, self.server, tuning)
        effects = Effects(
            journal,
            slots,
            store,
            Downloader(config.repository.url, store, rng=rng),
            engines,
            ProbationWatch(engines, self.server, clock, tuning),
            host,
            tuning,
            self.reporter,
            self._changed,
        )
        verifier = Verifier(TrustSettings.of(config), journal, clock)
        self.deployer = Deployer(
            journal,
            effects,
            verifier,
            self.reporter,
            tuning,
            self._changed,
            rng,
            stopped_in_order=stopped_in_order,
        )
        self.watch = ServerWatch(self.server, self.reporter, self._server_changed)
        self.wishes = Wishes(journal, self.deployer, self._changed)
        self.session = Session(
            SessionSettings.of(config),
            topics,
            epoch=journal.epoch(),
            outbox=journal,
            on_desired=self.deployer.on_desired,
            on_notice=self._heed,
            reported=lambda: self.reporter.reported().encode(),
            clock=clock,
            rng=rng,
            generation=lambda: journal.generation()[0],
        )
        self.uplink = Uplink(
            self.server,
            journal,
            topics,
            config.telemetry.interval_s,
            host=host.figures,
            clock=clock,
            on_enqueued=self.session.kick_outbox,
        )
        self._telemetry_interval_s = config.telemetry.interval_s
        self._config_watch = ConfigWatch(path, config, self._reconfigure)
        self._child = ServerChild(server_command(config), rng) if with_server else None
        self._stop = asyncio.Event()
        self._clock = clock
        self._started_s = clock.monotonic_s()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; then leave everything as it has to be found."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop.set)
        notifier = Notifier()
        loop.add_signal_handler(signal.SIGHUP, notifier.reloading, self._config_watch.reload)
        log.info("agent.started", epoch=self.journal.epoch(), pid=os.getpid())
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._child is not None:
                    tasks.create_task(self._child.run(), name="server")
                tasks.create_task(self.watch.run(), name="server.watch")
                tasks.create_task(self.deployer.run(), name="deployer")
                tasks.create_task(self.deployer.retry_verification(), name="deployer.retry")
                tasks.create_task(self.wishes.run(), name="wishes")
                tasks.create_task(self.session.run(), name="session")
                tasks.create_task(self.uplink.run(), name="telemetry")
                tasks.create_task(self.journal.reserve.keep_filled(), name="reserve")
                tasks.create_task(notifier.feed(self._healthy, self._status), name="watchdog")
                tasks.create_task(self._config_watch.run(), name="config")
                tasks.create_task(self._until_stopped(), name="stop")
                notifier.ready()
        except* _StopError:
            notifier.stopping()
            with suppress(JournalError):  # then the next life takes it for a crash
                self.journal.set_stopped()
            log.info("agent.stopped")
        finally:
            await self.server.aclose()

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        raise _StopError

    def _changed(self) -> None:
        self.session.request_report()
        self.session.kick_outbox()

    def _server_changed(self) -> None:
        self._changed()
        self.deployer.server_changed()

    def _heed(self, notice: Notice) -> None:
        self.deployer.pause(paused=notice.pause_updates)
        self.uplink.interval_s = notice.telemetry_interval_s or self._telemetry_interval_s

    def _reconfigure(self, config: Config) -> None:
        self._telemetry_interval_s = self.uplink.interval_s = config.telemetry.interval_s
        machine = Machine(detect_profile(config.device.labels), config.paths.state_dir)
        self.reporter.host = self.deployer.effects.host = machine
        self._changed()

    def _healthy(self) -> bool:
        # That this is called at all says that the loop turns.
        starting = self._clock.monotonic_s() - self._started_s < STARTING_S
        return starting or self.session.alive()

    def _status(self) -> str:
        server = self.reporter.server
        served = {
            name: slot.active.release
            for name, slot in (server.slots if server else {}).items()
            if slot.active
        }
        slots = ", ".join(f"{name}: {release}" for name, release in sorted(served.items()))
        online = "online" if self.session.connected else "offline"
        return f"{online}; serving {slots or 'nothing'}"


def run_agent(config: Config, path: Path, *, with_server: bool = False) -> None:
    """Run the agent of a device until it is told to end.

    Args:
        config: what was read from ``path``, which is watched for changes.
        path: the configuration file.
        with_server: start the server as a child.

    Raises:
        ConfigError: another agent uses the same state directory.
    """
    state_dir = config.paths.state_dir
    durable.make_directory(state_dir)
    config.paths.run_dir.mkdir(parents=True, exist_ok=True)
    with _only_agent(state_dir):
        journal, stopped_in_order = _begin_life(state_dir)

        async def live() -> None:
            await Agent(
                config,
                journal,
                path=path,
                with_server=with_server,
                stopped_in_order=stopped_in_order,
            ).run()

        try:
            asyncio.run(live())
        finally:
            journal.close()


def _begin_life(state_dir: Path) -> tuple[Journal, bool]:
    """Open the journal and begin an epoch, which has to be durable before CONNECT.

    Returns also whether the last life was ended in order. A full disk is waited for: the server
    serves without us, and whoever makes room need not know that we have to be started again.
    """
    # A rebuilt journal must not begin below what the cloud has seen of this device.
    first_epoch = int(SystemClock().unix_s())
    while True:
        journal = None
        try:
            journal = Journal(state_dir / JOURNAL, first_epoch=first_epoch)
            journal.begin_epoch()
            return journal, journal.take_stopped()
        except JournalError as error:
            log.error("agent.waits_for_disk", code=error.code, detail=error.detail)  # noqa: TRY400 - the trace says nothing more
            if journal is not None:
                journal.close()
        time.sleep(DISK_RETRY_S)


@contextmanager
def _only_agent(state_dir: Path) -> Iterator[None]:
    descriptor = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        msg = f"another agent works in {state_dir}: stop it, or name another [paths] state_dir"
        raise ConfigError(msg) from None
    try:
        yield
    finally:
        os.close(descriptor)
