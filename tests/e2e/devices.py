"""A node with stoker on it, seen by whoever looks after it: what it serves, and what it says."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from e2e.nodes import Node
from stoker_client.client import Client
from stoker_client.errors import InferError
from support.waiting import wait_until

SLOT: Final = "reader"
TENSOR: Final = "x"
AGENT: Final = "stoker-agent.service"
SERVER: Final = "stoker-server.service"
STATE: Final = "var/lib/stoker"
SOCKET: Final = "run/stoker/inference.sock"
PROGRAMS: Final = "/opt/stoker/current/bin"


@dataclass(frozen=True, slots=True)
class Serving:
    """Who answered a request, and what."""

    release: str
    digest: str
    digits: tuple[int, ...]


class Device:
    """One device of the fleet."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.name = node.name

    # Inference.

    @property
    def socket(self) -> Path:
        """The inference socket, as it can be reached from here."""
        return self.node.root / SOCKET

    def infer(self, frames: np.ndarray[Any, np.dtype[np.float32]]) -> Serving:
        """Ask for each frame.

        Raises:
            InferError: one was not answered.
        """
        digits = []
        release = digest = ""
        with Client(SLOT, socket=self.socket, timeout_s=10) as client:
            for frame in frames:
                answer = client.infer({TENSOR: frame})
                release, digest = answer.release, answer.digest
                digits.append(int(next(iter(answer.values())).argmax()))
        return Serving(release, digest, tuple(digits))

    def serving(self, frames: np.ndarray[Any, np.dtype[np.float32]]) -> Serving | None:
        """Who answers now; None if nobody does."""
        try:
            return self.infer(frames)
        except InferError:
            return None

    def is_whole(self, digest: str) -> bool:
        """Whether the bytes of an artifact on the device's disk are what their name says."""
        stored = self.node.root / STATE / "store/sha256" / digest
        return hashlib.sha256(stored.read_bytes()).hexdigest() == digest

    # What it says.

    def status(self) -> dict[str, Any]:
        """``stoker-agent status``."""
        found: dict[str, Any] = json.loads(self.stoker_agent("status", "--json"))
        return found

    def stoker_agent(self, *arguments: str) -> str:
        """Run the command line on the device, as who may read the device's state."""
        return self.node.run(
            *("setpriv", "--reuid=stoker", "--regid=stoker", "--init-groups"),
            *(f"{PROGRAMS}/stoker-agent", *arguments),
        )

    # Its services.

    def pid(self, unit: str) -> int:
        """The main process of a service, by the ids of the node."""
        return int(self.node.run("systemctl", "show", "--value", "--property=MainPID", unit))

    def engine_pids(self) -> list[int]:
        """The processes of its engines, by the ids of the node."""
        told = self.node.ask("pgrep", "-u", "stoker", "-f", "stoker_engine")
        return [int(pid) for pid in told.split()]

    def restarts(self, unit: str) -> int:
        """How often systemd has restarted a service by itself."""
        return int(self.node.run("systemctl", "show", "--value", "--property=NRestarts", unit))

    def killed_for_memory(self, unit: str) -> int:
        """How many processes of a service the kernel has killed because of its limit."""
        group = f"system.slice/{unit}"
        places = (f"memory/{group}/memory.oom_control", f"{group}/memory.events")
        told = "".join(self.node.ask("cat", f"/sys/fs/cgroup/{place}") for place in places)
        return sum(int(line.split()[1]) for line in told.splitlines() if "oom_kill " in line)

    def restart(self, unit: str) -> None:
        """Restart a service, and wait until it says that it is ready."""
        self.node.run("systemctl", "restart", unit)

    def signal(self, number: str, pid: int) -> None:
        """Send a signal to a process, by the ids of the node."""
        self.node.run("kill", f"-{number}", str(pid))

    def wait_for_restart(self, unit: str, before: int, timeout_s: float = 120) -> None:
        """Wait until systemd has started a service again after it ended."""
        wait_until(
            lambda: self.restarts(unit) > before and self.is_active(unit),
            timeout_s,
            f"{unit} of {self.name} is running again",
        )

    def is_active(self, unit: str) -> bool:
        """Whether a service runs and has said that it is ready."""
        return self.node.ask("systemctl", "is-active", unit).strip() == "active"

    def journal(self, unit: str) -> str:
        """What a service logged in this boot."""
        return self.node.ask("journalctl", "--no-pager", "--boot", "--unit", unit, "--output=cat")

    def journal_of_manager(self, unit: str) -> str:
        """What systemd said of a service in this boot."""
        return self.node.ask("journalctl", "--no-pager", "--boot", "--output=cat", f"UNIT={unit}")
