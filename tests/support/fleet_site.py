"""A fleet on this machine: keys, repository, broker, fleet.toml, and the controller process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from stoker_cli.broker.process import Broker, find_mosquitto
from stoker_fleet.config import FleetConfig, TlsConfig, load_config
from stoker_fleet.controller import catalogue
from stoker_fleet.core.assignment import RolloutPlan
from stoker_fleet.core.rollout import RolloutState, state_of
from stoker_fleet.lock import is_controller_running
from stoker_fleet.requests import request_rollout
from stoker_fleet.store import devices, rollouts
from stoker_fleet.store.devices import DeviceView
from stoker_fleet.store.rollouts import RolloutView
from stoker_fleet.store.schema import Store
from stoker_trust.image_repository import ImageRepository, Published
from stoker_trust.initialise import init_dev
from support.release_folders import make_release
from support.waiting import wait_until


@contextmanager
def fleet_site(folder: Path) -> Iterator["FleetSite"]:
    """A fleet with a real mosquitto, all of it ended at the end."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with Broker(folder / "broker", program="mosquitto") as broker:
        site = FleetSite(folder / "site", broker)
        try:
            yield site
        finally:
            site.close()


@dataclass
class FleetSite:
    """Everything the cloud side of a fleet has, in one folder."""

    folder: Path
    broker: Broker
    protocol: str = "auto"
    tls: TlsConfig | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        keyring, _ = init_dev(self.folder / "keys", self.folder / "repository", datetime.now(UTC))
        self.images = ImageRepository(self.folder / "repository", keyring)
        self.config_path = self.folder / "fleet.toml"
        text = (
            'fleet = "demo"\ndatabase = "fleet.db"\nkeys = "keys"\nrepository = "repository"\n'
            f'[mqtt]\nhost = "127.0.0.1"\nport = {self.broker.port}\n'
            f'protocol = "{self.protocol}"\n'
        )
        if self.tls is not None:
            lines = (f'{name} = "{path}"' for name, path in self.tls)
            text += "[mqtt.tls]\n" + "\n".join(lines) + "\n"
        self.config_path.write_text(text, encoding="utf-8")

    @property
    def config(self) -> FleetConfig:
        """The configuration, with absolute paths."""
        return load_config(self.config_path)

    def publish(self, version: str, counter: int, **more: Any) -> Published:  # noqa: ANN401  passed on
        """Make a release and publish it."""
        model = more.get("model", "digits")
        folder = self.folder / f"release-{model}-{version}"
        make_release(folder, version=version, counter=counter, **more)
        return self.images.publish(folder, datetime.now(UTC))

    def start_controller(self) -> subprocess.Popen[bytes]:
        """Start ``stoker fleet run``, and wait until it works."""
        log = (self.folder / "controller.log").open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "stoker_cli.main", "fleet", "run", "--config",
                 str(self.config_path), "--log-format", "json"],
                stderr=log,
            )  # fmt: skip
        self.processes.append(process)
        wait_until(
            lambda: process.poll() is not None or is_controller_running(self.config.database),
            what="the controller works",
        )
        assert process.poll() is None, (self.folder / "controller.log").read_text()
        return process

    @cached_property
    def store(self) -> Store:
        """The store that the controller writes, for reading along."""
        return Store(self.config.database)

    def known(self) -> dict[str, DeviceView]:
        """The devices that reported."""
        with self.store.transaction() as session:
            views = devices.all_devices(session)
        return {view.device: view for view in views if view.reported is not None}

    def wait_for(self, *names: str) -> None:
        """Wait until the controller knows these devices."""
        wait_until(lambda: set(names) <= self.known().keys(), what=f"{names} are known")

    def roll_out(self, release: str, to: str = "all", slot: str = "main") -> str:
        """Ask for a rollout as ``stoker rollout create`` does."""
        with self.store.transaction() as session:
            request = request_rollout(
                session,
                catalogue(self.config, "cli"),
                release=release,
                slot=slot,
                selector=to,
                plan=RolloutPlan(),
                now=datetime.now(UTC),
            )
        return request.rollout_id

    def rollout(self, rollout_id: str) -> RolloutView:
        """A rollout as it is now."""
        with self.store.transaction() as session:
            return rollouts.view(session, rollout_id)

    def wait_until_over(self, rollout_id: str, timeout_s: float = 60) -> RolloutView:
        """Wait until every device of a rollout is final."""
        wait_until(
            lambda: state_of(self.rollout(rollout_id).devices) is not RolloutState.RUNNING,
            timeout_s,
            what=f"{rollout_id} is over",
        )
        return self.rollout(rollout_id)

    def stoker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a ``stoker`` command with this fleet's configuration."""
        done = subprocess.run(
            [sys.executable, "-m", "stoker_cli.main", *arguments],
            env={**os.environ, "STOKER_FLEET_CONFIG": str(self.config_path), "COLUMNS": "200"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def stoker_json(self, *arguments: str, check: bool = True) -> Any:  # noqa: ANN401  JSON
        """Run a ``stoker`` command with ``--json`` and return what it printed."""
        return json.loads(self.stoker(*arguments, "--json", check=check).stdout)

    def log(self) -> list[dict[str, Any]]:
        """What the controllers logged so far."""
        lines = (self.folder / "controller.log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        """End every controller."""
        self.store.close()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(10)
