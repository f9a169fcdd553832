"""``--with-server``: the inference server as a child, for a laptop or a test.

On a device the two are separate units, so that inference goes on while the agent restarts.
"""

import asyncio
import contextlib
import ctypes
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from stoker_agent.config import Config

PR_SET_PDEATHSIG: Final = 1
STABLE_S: Final = 10.0
LONGEST_PAUSE_S: Final = 10.0
STOP_S: Final = 15.0
_LIBC: Final = ctypes.CDLL(None)

log: Final = structlog.get_logger("stoker.server_child")


def server_command(config: Config) -> list[str]:
    """How the server is started beside this agent."""
    return [
        sys.executable,
        "-m",
        "stoker_server",
        "--state-dir",
        str(config.paths.state_dir),
        "--run-dir",
        str(config.paths.run_dir),
        "--http",
        config.server.http,
        "--log-format",
        "json",
    ]


@dataclass(slots=True)
class ServerChild:
    """Keeps the server running, and takes it along when the agent ends."""

    command: Sequence[str]
    rng: random.Random = field(default_factory=random.Random)
    pid: int | None = None

    async def run(self) -> None:
        """Start it, and again whenever it ended."""
        quick_ends = 0
        while True:
            lived_s = await self._once()
            quick_ends = 0 if lived_s >= STABLE_S else quick_ends + 1
            pause_s = min(LONGEST_PAUSE_S, 0.2 * 2**quick_ends) * self.rng.uniform(0.5, 1.0)
            log.warning("server.ended", lived_s=round(lived_s, 1), again_in_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)

    async def _once(self) -> float:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        process = await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.DEVNULL, preexec_fn=_die_with_parent
        )
        self.pid = process.pid
        log.info("server.started", pid=process.pid)
        try:
            await process.wait()
        finally:
            self.pid = None
            if process.returncode is None:
                await _stop(process)
        return loop.time() - started_s


async def _stop(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _die_with_parent() -> None:
    # A killed agent can not stop its child; the kernel does.
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
