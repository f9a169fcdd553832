"""A node: a whole Debian with systemd as its first process, and a power button."""

import os
import shlex
import shutil
import signal
import subprocess
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from e2e import cgroups, disks
from e2e.links import Link
from support.waiting import wait_until

HOST: Final = Path(__file__).with_name("node-host")
BOOT_TIMEOUT_S: Final = 60


class NodeError(Exception):
    """A command failed on a node."""


@dataclass
class Node:
    """One machine of the fleet.

    Attributes:
        folder: its disk image and its console log.
        image: the system below its disk.
        options: more arguments for systemd-nspawn.
    """

    name: str
    link: Link
    folder: Path
    image: Path
    authorized_key: str
    options: str = ""
    _groups: list[Path] = field(default_factory=list)
    _host: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its address on the bridge."""
        return self.link.address

    @property
    def host_key(self) -> str:
        """Its public SSH key."""
        return (self.folder / "host_key.pub").read_text().strip()

    def make(self, hosts: str) -> None:
        """Make its disk: an identity, its SSH key and who may log in, and otherwise nothing."""
        for place in ("disk", "root"):
            (self.folder / place).mkdir(parents=True)
        content = self.folder / "content"
        etc = content / "upper/etc"
        (etc / "ssh").mkdir(parents=True)
        (content / "work").mkdir()
        (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
        (etc / "hostname").write_text(self.name + "\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n{hosts}")
        key = self.folder / "host_key"
        make_ssh_key(key)
        for file in (key, key.with_suffix(".pub")):
            shutil.copy(file, etc / "ssh" / file.name.replace("host_key", "ssh_host_ed25519_key"))
        ssh = content / "upper/root/.ssh"
        ssh.mkdir(parents=True)
        (content / "upper/root").chmod(0o700)
        (ssh / "authorized_keys").write_text(self.authorized_key)
        disks.make_disk(self.folder / "disk.img", content)
        shutil.rmtree(content)

    # Power.

    def switch_on(self) -> None:
        """Begin to boot."""
        self._groups = cgroups.make(self.folder.parent.name, self.name)
        with (self.folder / "console.log").open("ab") as console:
            self._host = subprocess.Popen(
                [
                    *("unshare", "--mount", "--propagation", "private", str(HOST), self.name),
                    *map(str, (self.folder, self.image, *self._groups)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "NSPAWN_OPTIONS": self.options},
                start_new_session=True,
            )

    def boot(self) -> None:
        """Switch on, and wait until systemd has started everything."""
        self.switch_on()
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until systemd has started everything."""
        wait_until(self._is_up, BOOT_TIMEOUT_S, f"{self.name} is up; see {self.folder}/console.log")

    def _is_up(self) -> bool:
        if self._host is not None and self._host.poll() is not None:
            msg = f"{self.name} ended while it booted; see {self.folder}/console.log"
            raise NodeError(msg)
        if self.leader is None:
            return False
        told = self.ask("systemctl", "is-system-running")
        return told.strip() in {"running", "degraded"}

    def cut_power(self) -> None:
        """Take the power away: what its disk had not made durable is gone, and nobody is asked."""
        assert self._host is not None
        disks.lose_power(Path(f"/proc/{self._host.pid}/root{self.folder}/disk"))
        doomed = [psutil.Process(self._host.pid), *psutil.Process(self._host.pid).children()]
        leader = self.leader
        for process in doomed:
            process.kill()
        if leader is not None and psutil.pid_exists(leader):
            os.kill(leader, signal.SIGKILL)
        self._wait_until_off()

    def switch_off(self) -> None:
        """Shut down in order."""
        self.run("systemctl", "poweroff")
        self._wait_until_off()

    def _wait_until_off(self) -> None:
        assert self._host is not None
        self._host.wait(60)
        self._host = None
        # A disk that something still holds would be mounted again as it is now: dead.
        image = self.folder / "disk.img"
        wait_until(lambda: not disks.loop_devices(image), 30, f"{self.name} lets go of its disk")

    def restart_system(self) -> None:
        """Reboot in order, and wait until it is up again."""
        before = self.boot_id
        self.run("systemctl", "reboot")
        wait_until(
            lambda: self.leader is not None and self.ask("cat", _BOOT_ID).strip() != before,
            BOOT_TIMEOUT_S,
            f"{self.name} reboots",
        )
        self.wait_until_up()

    # From inside.

    @property
    def leader(self) -> int | None:
        """The process id, here, of the node's first process; None while it is off."""
        if self._host is None:
            return None
        try:
            (nspawn,) = psutil.Process(self._host.pid).children()
            (leader,) = nspawn.children()
        except (psutil.NoSuchProcess, ValueError):
            return None
        pid: int = leader.pid
        return pid

    @property
    def root(self) -> Path:
        """Its files, as its own processes see them."""
        return Path(f"/proc/{self.leader}/root")

    @property
    def boot_id(self) -> str:
        """Changes with each boot."""
        return self.run("cat", _BOOT_ID).strip()

    def run(
        self,
        *command: str,
        timeout_s: float = 60,
        stdin: str | None = None,
        accept: Collection[int] = (0,),
    ) -> str:
        """Run a command as root on the node, past its network. Returns what it printed.

        Raises:
            NodeError: it ended with a status that is not accepted; with what it said.
        """
        done = self._enter(command, timeout_s, stdin)
        if done.returncode not in accept:
            msg = f"{self.name}: `{shlex.join(command)}` ended with {done.returncode}: "
            raise NodeError(msg + (done.stderr or done.stdout).strip()[-2000:])
        return done.stdout

    def ask(self, *command: str, timeout_s: float = 60) -> str:
        """As :meth:`run`, for a command whose failure is an answer; "" while the node is off."""
        try:
            return self._enter(command, timeout_s, None).stdout
        except (NodeError, subprocess.TimeoutExpired):
            return ""

    def _enter(
        self, command: tuple[str, ...], timeout_s: float, stdin: str | None
    ) -> subprocess.CompletedProcess[str]:
        leader = self.leader
        if leader is None:
            msg = f"{self.name} is off"
            raise NodeError(msg)
        return subprocess.run(
            [*("nsenter", "--target", str(leader), "--all", "--"), *("env", "-i", _PATH), *command],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def make_ssh_key(path: Path) -> None:
    """Make a key pair."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stoker-e2e", "-f", path], check=True
    )


_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
