"""The network of a run: one bridge, and a line to each node that can be made bad or cut."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

from e2e.netem import INTERFACE, READY, Condition

BRIDGE: Final = "bridge"
NETWORK: Final = "10.77.0"
OPERATOR: Final = f"{NETWORK}.1"
"""Where we are: the machine that playbooks are run from."""


def ip(*arguments: str) -> None:
    """Run ``ip``."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"ip {' '.join(arguments)}: {done.stderr.strip()}"
        raise RuntimeError(msg)


def make_bridge() -> None:
    """Make the bridge that every line ends at."""
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("address", "add", f"{OPERATOR}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")


class Link:
    """The line of one node. It outlives reboots of the node."""

    def __init__(self, name: str, number: int) -> None:
        self.address = f"{NETWORK}.{number}"
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        self._relay = subprocess.Popen(
            [sys.executable, "-m", "e2e.netem", name, name, BRIDGE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._await_answer()
        ip("-n", name, "address", "add", f"{self.address}/24", "dev", INTERFACE)
        ip("-n", name, "link", "set", INTERFACE, "up")
        ip("-n", name, "route", "add", "default", "via", OPERATOR)

    @contextmanager
    def being(self, condition: Condition) -> Iterator[None]:
        """Let the line be so for a while."""
        self.set(condition)
        try:
            yield
        finally:
            self.set(Condition())

    def set(self, condition: Condition) -> None:
        """Let the line be so from now on."""
        assert self._relay.stdin is not None
        self._relay.stdin.write(json.dumps(asdict(condition)) + "\n")
        self._relay.stdin.flush()
        self._await_answer()

    def _await_answer(self) -> None:
        assert self._relay.stdout is not None
        if self._relay.stdout.readline().strip() != READY:
            msg = f"the line of {self.address} is gone"
            raise RuntimeError(msg)
