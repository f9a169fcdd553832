"""A broker as a child process: mosquitto where it is installed, else one from the registry."""

import getpass
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from stoker_cli.broker.configuration import TlsFiles, access_list, mosquitto_configuration
from stoker_cli.broker.ports import LOOPBACK, free_port, is_listening
from stoker_cli.errors import CommandError
from stoker_cli.processes import Process

INSTALL_HINT: Final = "Install mosquitto: apt-get install mosquitto"
# Debian keeps it where the PATH of a user does not look.
SEARCH_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

Program = Literal["mosquitto", "in-process"]


def find_mosquitto() -> str | None:
    """The path of mosquitto, or None where it is not installed."""
    return shutil.which("mosquitto", path=SEARCH_PATH)


def installed_program() -> Program:
    """Which broker this machine can run.

    Raises:
        CommandError: it can run none.
    """
    if find_mosquitto():
        return "mosquitto"
    if importlib.util.find_spec("amqtt"):
        return "in-process"
    msg = "no MQTT broker is installed"
    raise CommandError(msg, hint=f"{INSTALL_HINT}; or: pip install 'stoker[broker]'")


class Broker:
    """An MQTT broker on a loopback port, with all of its files in one directory.

    Attributes:
        port: stays the same over ``stop``, ``kill`` and ``restart``.
        program: ``mosquitto`` (MQTT 5 and 3.1.1) or ``in-process`` (3.1.1 only, no TLS).
    """

    host: Final = LOOPBACK

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        tls: TlsFiles | None = None,
        program: Program | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.port = port or free_port()
        self.tls = tls
        self.program: Program = program or installed_program()
        if tls is not None and self.program != "mosquitto":
            msg = "TLS needs mosquitto"
            raise CommandError(msg, hint=INSTALL_HINT)
        self._process: Process | None = None

    @property
    def speaks_mqtt5(self) -> bool:
        """Whether clients may use MQTT 5."""
        return self.program == "mosquitto"

    @property
    def is_running(self) -> bool:
        """Whether the broker's process lives."""
        return self._process is not None and self._process.is_running

    @property
    def pid(self) -> int:
        """The id of the broker's process."""
        return self._started().pid

    def start(self) -> Self:
        """Start it and wait until it accepts connections."""
        self.directory.mkdir(parents=True, exist_ok=True)
        process = Process("the broker", self._command(), log=self.directory / "broker.log")
        self._process = process
        process.start()
        try:
            process.wait_until(lambda: is_listening(self.port), "listening")
        except CommandError:
            process.stop()
            raise
        return self

    def stop(self) -> None:
        """End it in order: what is retained and queued is saved."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End it as a crash would."""
        self._started().kill()

    def wait(self) -> None:
        """Wait until it ends by itself."""
        self._started().wait()

    def restart(self) -> None:
        """Stop it, then start it on the same port."""
        self.stop()
        self.start()

    def _started(self) -> Process:
        if self._process is None:
            msg = "the broker was not started"
            raise RuntimeError(msg)
        return self._process

    def _command(self) -> tuple[str, ...]:
        mosquitto = find_mosquitto()
        if self.program == "in-process":
            return (sys.executable, "-m", "stoker_cli.broker.in_process", str(self.port))
        if mosquitto is None:
            msg = "mosquitto is not installed"
            raise CommandError(msg, hint=INSTALL_HINT)
        # Started as root it would become another user, who may not read our directory.
        user = getpass.getuser() if os.geteuid() == 0 else None
        text = mosquitto_configuration(self.directory, self.port, tls=self.tls, user=user)
        configuration = self.directory / "mosquitto.conf"
        configuration.write_text(text)
        acl = self.directory / "acl"
        acl.write_text(access_list())
        acl.chmod(0o600)  # newer mosquitto refuses one that others may read
        return (mosquitto, "-c", str(configuration))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
