"""An application on a device: requests at a fixed rate, and what became of every one."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.devices import SLOT, TENSOR, Device
from stoker_cli.demo.traffic import LOAD_MODULE, Answer, Window
from support.waiting import wait_until

RATE_HZ: Final = 50.0


@dataclass
class Load:
    """One client process that sends to one device until it is stopped."""

    out: Path
    process: subprocess.Popen[bytes]

    def answers(self) -> list[Answer]:
        """Every request that has come to an end, in the order they were due."""
        if not self.out.exists():
            return []
        whole = self.out.read_text().rpartition("\n")[0]
        found = [Answer(**json.loads(line)) for line in whole.splitlines()]
        return sorted(found, key=lambda answer: answer.due_ns)

    def wait_for_more(self, count: int = 50, timeout_s: float = 60) -> None:
        """Wait until so many more requests have come to an end."""
        wanted = len(self.answers()) + count
        wait_until(lambda: len(self.answers()) >= wanted, timeout_s, "more requests are answered")

    def stop(self) -> Window:
        """Send no more, and wait for what is still out. Returns all of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        return Window(tuple(self.answers()))


@contextmanager
def load(device: Device, frames: Path, folder: Path, rate_hz: float = RATE_HZ) -> Iterator[Load]:
    """Send to a device while the block runs."""
    out = folder / f"load-{device.name}-{time.monotonic_ns()}.jsonl"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", LOAD_MODULE, "--socket", device.socket, "--slot", SLOT),
            *("--input", TENSOR, "--frames", frames, "--rate", str(rate_hz), "--out", out),
        ],
        stderr=subprocess.DEVNULL,
    )
    sent = Load(out, process)
    try:
        sent.wait_for_more(10)
        yield sent
    finally:
        sent.stop()


def lost(window: Window) -> str:
    """What is said of a window: "1,234 requests, 0 lost"."""
    return f"{len(window.answers):,} requests, {len(window.failed)} lost"
