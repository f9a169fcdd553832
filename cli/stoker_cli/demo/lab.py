"""A whole fleet on this machine: keys, repository, broker, controller and devices.

Everything is a real process of ours on loopback or Unix sockets, with its files below one folder,
and is ended by its id when the lab is closed. The demo and the system tests both use it.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from stoker_cli.broker.configuration import CONTROLLER, TlsFiles
from stoker_cli.broker.ports import LOOPBACK, free_port, is_listening
from stoker_cli.broker.process import Broker, Program
from stoker_cli.errors import CommandError
from stoker_cli.processes import Process, poll_until

# A Unix socket's path has at most 107 bytes; this leaves room for the longest name of ours.
MAX_RUN_DIR_BYTES: Final = 80
# One thread per library, or the devices would fight for the cores of one machine.
ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PROGRAMS: Final = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class LabSettings:
    """How the lab differs from a real fleet: everything is quicker.

    Attributes:
        broker: None takes the best one that is installed.
        tls: None takes client certificates where the broker can check them.
    """

    fleet: str = "demo"
    broker: Program | None = None
    tls: bool | None = None
    telemetry_interval_s: float = 2.0
    reconnect_cap_s: float = 1.0
    environment: Mapping[str, str] = field(default_factory=dict)


class Device:
    """One device: an agent and a server, with a folder and sockets of their own."""

    def __init__(self, lab: "Lab", name: str, labels: Mapping[str, str]) -> None:
        self.name = name
        self.labels = dict(labels)
        self.root = lab.root / "devices" / name
        self.state_dir = self.root / "state"
        self.run_dir = lab.run_dir(name)
        self.config = self.root / "agent.toml"
        for folder in (self.root, self.state_dir, self.run_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(lab.agent_configuration(self))
        self.server = lab.process(
            f"{name}-server",
            [
                str(PROGRAMS / "stoker-server"),
                *("--state-dir", str(self.state_dir)),
                *("--run-dir", str(self.run_dir)),
                *("--http", "none"),
            ],
        )
        self.agent = lab.process(
            f"{name}-agent",
            [str(PROGRAMS / "stoker-agent"), "run", "--config", str(self.config)],
        )

    @property
    def inference_socket(self) -> Path:
        """Where applications send requests."""
        return self.run_dir / "inference.sock"

    def start(self) -> Self:
        """Start the server, then the agent."""
        self.start_server()
        self.agent.start()
        return self

    def start_server(self) -> None:
        """Start the server, and wait until it listens."""
        self.inference_socket.unlink(missing_ok=True)
        self.server.start()
        self.server.wait_until(self.inference_socket.exists, "listening")

    def stop(self) -> None:
        """End both in order."""
        self.agent.stop()
        self.server.stop()

    def memory_bytes(self) -> int:
        """What server and engines hold for themselves (pages they share counted once)."""
        total = 0
        try:
            server = psutil.Process(self.server.pid)
            for process in (server, *server.children(recursive=True)):
                total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            return 0
        return total

    def engine_pids(self) -> list[int]:
        """The processes of the loaded engines."""
        return [child.pid for child in psutil.Process(self.server.pid).children(recursive=True)]

    def partial_downloads(self) -> dict[str, int]:
        """Bytes that are there of each unfinished download, by digest."""
        parts = (self.state_dir / "incoming").glob("*.part")
        return {part.stem: part.stat().st_size for part in parts if part.exists()}


class Lab:
    """Keys, repository, broker, controller and devices. Use it as a context."""

    def __init__(self, root: Path, settings: LabSettings | None = None) -> None:
        self.root = root.resolve()
        self.settings = settings or LabSettings()
        self.keys = self.root / "keys"
        self.repository = self.root / "repository"
        self.pki = self.root / "pki"
        self.logs = self.root / "logs"
        self.fleet_configuration = self.root / "fleet.toml"
        self.devices: dict[str, Device] = {}
        self.repository_port = free_port()
        self._ending = ExitStack()
        self._repository: Process | None = None
        self._broker: Broker | None = None

    # Processes and commands.

    def process(self, name: str, command: Sequence[str]) -> Process:
        """A process that is ended with the lab."""
        process = Process(
            name,
            command,
            log=self.logs / f"{name}.log",
            environment={**self.command_environment(), **self.settings.environment},
        )
        self._ending.callback(process.stop)
        return process

    def stoker(self, *arguments: str, show: bool = False, accept: Sequence[int] = (0,)) -> str:
        """Run a command of ``stoker`` and return what it printed.

        Args:
            arguments: what comes after ``stoker``.
            show: let it print on our terminal, and return nothing.
            accept: exit statuses that are no error.

        Raises:
            CommandError: it failed; with what it said.
        """
        done = subprocess.run(  # noqa: S603  our own program, argument by argument
            [str(PROGRAMS / "stoker"), *arguments],
            check=False,
            text=True,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            env={**os.environ, **self.command_environment()},
        )
        if done.returncode not in accept:
            msg = f"`stoker {shlex.join(arguments)}` ended with status {done.returncode}"
            raise CommandError(msg, hint=(done.stderr or "").strip())
        return done.stdout or ""

    def command_environment(self) -> dict[str, str]:
        """The environment in which commands find this fleet."""
        return {**ENVIRONMENT, "STOKER_FLEET_CONFIG": str(self.fleet_configuration)}

    def run_dir(self, name: str) -> Path:
        """A folder for the sockets of one device, with a path that is short enough."""
        wanted = self.root / "run" / name
        if len(os.fsencode(wanted)) <= MAX_RUN_DIR_BYTES:
            return wanted
        short = tempfile.TemporaryDirectory(prefix="stoker-")
        self._ending.callback(short.cleanup)
        return Path(short.name)

    # The parts of the fleet.

    def prepare(self) -> None:
        """Make throw-away keys, an empty repository, certificates, and the configuration."""
        self.root.mkdir(parents=True, exist_ok=True)
        keys = ("--keys", str(self.keys), "--repository", str(self.repository))
        self.stoker("key", "init", "--dev", *keys)
        broker = self.broker
        if broker.tls is not None:
            self.stoker("pki", "init", "--dir", str(self.pki))
            self.stoker("pki", "issue", CONTROLLER, "--dir", str(self.pki))
        self.fleet_configuration.write_text(self._fleet_configuration())

    @property
    def broker(self) -> Broker:
        """The broker; with client certificates where it can check them."""
        if self._broker is None:
            plain = Broker(self.root / "broker", program=self.settings.broker)
            tls = self.settings.tls if self.settings.tls is not None else plain.speaks_mqtt5
            files = TlsFiles(
                ca=self.pki / "ca.crt",
                certificate=self.pki / "broker.crt",
                key=self.pki / "broker.key",
            )
            self._broker = Broker(
                plain.directory,
                port=plain.port,
                tls=files if tls else None,
                program=plain.program,
            )
            self._ending.callback(self._broker.stop)
        return self._broker

    def serve_repository(self, *, rate_limit_bytes_per_s: int | None = None) -> None:
        """Serve the image repository, or serve it again at another rate."""
        if self._repository is not None:
            self._repository.stop()
        limit = ["--rate-limit", str(rate_limit_bytes_per_s)] if rate_limit_bytes_per_s else []
        self._repository = self.process(
            "repository",
            [
                *(str(PROGRAMS / "stoker"), "repository", "serve", str(self.repository)),
                *("--port", str(self.repository_port), *limit),
            ],
        ).start()
        self._repository.wait_until(lambda: is_listening(self.repository_port), "listening")

    def start_controller(self) -> Process:
        """Run the fleet's controller."""
        controller = self.process("controller", [str(PROGRAMS / "stoker"), "fleet", "run"])
        return controller.start()

    def publish(self, release: Path) -> None:
        """Sign a release folder into the repository."""
        keys = ("--keys", str(self.keys), "--repository", str(self.repository))
        self.stoker("publish", str(release), *keys)

    def add_device(self, name: str, **labels: str) -> Device:
        """Provision a device: certificate, trust roots, configuration. It is not started."""
        if self.broker.tls is not None:
            self.stoker("pki", "issue", name, "--dir", str(self.pki))
        device = Device(self, name, labels)
        self.devices[name] = device
        return device

    def online_devices(self) -> set[str]:
        """The devices that the fleet knows to be online and to have reported."""
        told = json.loads(self.stoker("device", "list", "--json"))
        return {one["device"] for one in told if one["online"] and one["reported"]}

    # Configuration files.

    def agent_configuration(self, device: Device) -> str:
        """The ``agent.toml`` of a device of this lab."""
        labels = ", ".join(f'{key} = "{value}"' for key, value in device.labels.items())
        lines = [
            "[device]",
            f'id = "{device.name}"',
            f'fleet = "{self.settings.fleet}"',
            f"labels = {{ {labels} }}",
            *self._mqtt_lines(device.name),
            "[repository]",
            f'url = "http://{LOOPBACK}:{self.repository_port}"',
            "[trust]",
            f'image_root = "{self.keys / "trust" / "image-root.json"}"',
            f'director_root = "{self.keys / "trust" / "director-root.json"}"',
            "allow_dev = true",
            "[paths]",
            f'state_dir = "{device.state_dir}"',
            f'run_dir = "{device.run_dir}"',
            "[telemetry]",
            f"interval_s = {self.settings.telemetry_interval_s}",
            "[connection]",
            "base_s = 0.2",
            f"cap_s = {self.settings.reconnect_cap_s}",
            "boot_jitter_s = 0",
        ]
        return "\n".join(lines) + "\n"

    def _fleet_configuration(self) -> str:
        lines = [
            f'fleet = "{self.settings.fleet}"',
            f'database = "{self.root / "fleet.db"}"',
            f'keys = "{self.keys}"',
            f'repository = "{self.repository}"',
            f'cache = "{self.root / "fleet-cache"}"',
            *self._mqtt_lines(CONTROLLER),
        ]
        return "\n".join(lines) + "\n"

    def _mqtt_lines(self, name: str) -> list[str]:
        broker = self.broker
        lines = [
            "[mqtt]",
            f'host = "{broker.host}"',
            f"port = {broker.port}",
            f'protocol = "{"auto" if broker.speaks_mqtt5 else "3.1.1"}"',
        ]
        if broker.tls is not None:
            lines += [
                "[mqtt.tls]",
                f'ca = "{broker.tls.ca}"',
                f'certificate = "{self.pki / f"{name}.crt"}"',
                f'key = "{self.pki / f"{name}.key"}"',
            ]
        return lines

    def close(self) -> None:
        """End every process, the last one started first."""
        self._ending.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def wait_for(what: str, done: Callable[[], object], *, timeout_s: float) -> None:
    """Wait until ``done()`` is true.

    Raises:
        CommandError: it is not when the time is up.
    """
    if not poll_until(lambda: bool(done()), timeout_s=timeout_s):
        msg = f"{what}: not within {timeout_s:g} s"
        raise CommandError(msg)
