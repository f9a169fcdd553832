"""A real Redis on the loopback, in a folder of its own."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoker_cli.broker.ports import free_port
from support.mosquitto import listens
from support.waiting import wait_until


class Redis:
    """One broker, which can be ended and started again without what it had."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = shutil.which("redis-server")
        assert program is not None
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [program, *options, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
        )
        wait_until(lambda: listens(self.port), what="redis listens")

    def kill(self) -> None:
        """End it without notice, and all that it had with it; fine if it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None


@contextmanager
def running_redis(folder: Path) -> Iterator[Redis]:
    """A Redis that ends with the block. Skips the test where it is not installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    broker = Redis(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
