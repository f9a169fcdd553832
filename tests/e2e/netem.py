"""The line between a node and the rest: two network interfaces, and what happens in between.

Not every kernel has sch_netem, so the packets pass through this process, which delays, loses or
stops them as it is told. Run by ``links.py`` as ``python -m e2e.netem NAME NETNS BRIDGE``; it takes
JSON objects on standard input, one a line, answers each with a line, and ends with its input.
"""

import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import Any, Final

_TUNSETIFF: Final = 0x4004_54CA
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_LARGEST_FRAME: Final = 2048
_AT_ONCE: Final = 64
"""Frames read from one side before the other side has its turn."""

INTERFACE: Final = "host0"
READY: Final = "ready"


@dataclass(frozen=True, slots=True)
class Condition:
    """How a line is, in each direction."""

    delay_ms: float = 0
    jitter_ms: float = 0
    loss: float = 0
    rate_kbit: float = 0  # 0: as fast as it goes
    cut: bool = False
    queue: int = 1000


def open_tap(name: str) -> int:
    """Make a network interface whose other end is the returned file."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


class Direction:
    """Frames from one interface to the other, in the order in which they are due."""

    def __init__(self, source: int, sink: int, rng: random.Random) -> None:
        self.source = source
        self.condition = Condition()
        self._sink = sink
        self._rng = rng
        self._waiting: list[tuple[float, int, bytes]] = []
        self._number = 0
        self._free_s = 0.0

    def take(self) -> None:
        """Take in what the source has."""
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(self.source, _LARGEST_FRAME)
            except BlockingIOError:
                return
            if not self._is_lost():
                self._number += 1
                heapq.heappush(self._waiting, (self._due_s(len(frame)), self._number, frame))

    def _is_lost(self) -> bool:
        now = self.condition
        return now.cut or len(self._waiting) >= now.queue or self._rng.random() < now.loss

    def _due_s(self, length: int) -> float:
        now, condition = time.monotonic(), self.condition
        if condition.rate_kbit:
            now = max(now, self._free_s) + length * 8 / (condition.rate_kbit * 1000)
            self._free_s = now
        jitter_ms = self._rng.uniform(-condition.jitter_ms, condition.jitter_ms)
        return now + max(0.0, condition.delay_ms + jitter_ms) / 1000

    def give(self) -> float | None:
        """Hand over what is due. Returns seconds until there is more; None with nothing waiting."""
        while self._waiting:
            ahead_s = self._waiting[0][0] - time.monotonic()
            if ahead_s > 0:
                return ahead_s
            frame = heapq.heappop(self._waiting)[2]
            if not self.condition.cut:
                try:
                    os.write(self._sink, frame)
                except OSError:
                    continue  # the interface is down: as if nobody listened
        return None


def relay(directions: tuple[Direction, Direction]) -> None:
    """Pass frames on until standard input ends."""
    control = sys.stdin.fileno()
    sources = {direction.source: direction for direction in directions}
    while True:
        ahead = [ahead_s for one in directions if (ahead_s := one.give()) is not None]
        readable, _, _ = select.select([*sources, control], [], [], min(ahead, default=None))
        for ready in readable:
            if ready == control:
                if not (line := os.read(control, 4096)):
                    return
                _change(directions, json.loads(line))
            else:
                sources[ready].take()


def _change(directions: tuple[Direction, Direction], changes: dict[str, Any]) -> None:
    for direction in directions:
        direction.condition = replace(Condition(), **changes)
    _say_ready()


def _say_ready() -> None:
    sys.stdout.write(READY + "\n")
    sys.stdout.flush()


def main() -> None:
    """Make both interfaces, plug them in, and relay."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this input
    name, netns, bridge = sys.argv[1:]
    near, far = f"up-{name}", f"down-{name}"
    near_tap, far_tap = open_tap(near), open_tap(far)
    for command in (
        ("ip", "link", "set", far, "netns", netns, "name", INTERFACE),
        ("ip", "link", "set", near, "master", bridge, "up"),
    ):
        subprocess.run(command, check=True)
    _say_ready()
    rng = random.Random(name)  # noqa: S311  losses, not secrets
    relay((Direction(near_tap, far_tap, rng), Direction(far_tap, near_tap, rng)))


if __name__ == "__main__":
    main()
