"""Child processes with a log file: started, waited for and ended by their own id."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stoker_cli.errors import CommandError

POLL_S: Final = 0.02
LOG_TAIL_BYTES: Final = 8192


class Process:
    """One program that we start, and that ends with us.

    It runs in a session of its own, so that Ctrl-C reaches only us and we end it in order;
    where ``setpriv`` exists the kernel ends it as well if we are killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        self._environment = {**os.environ, **(environment or {})}
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        if self._child is None:
            msg = f"{self.name} was not started"
            raise RuntimeError(msg)
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs or before it started."""
        return None if self._child is None else self._child.poll()

    def start(self) -> Self:
        """Start it; its output is appended to the log."""
        if self.is_running:
            msg = f"{self.name} runs already"
            raise RuntimeError(msg)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603  our own programs, argument by argument
                [*_ends_with_us(), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def stop(self, *, timeout_s: float = 15.0) -> int | None:
        """Ask it to end, and kill it if it does not. Returns its exit status."""
        if self._child is None:
            return None
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._child.returncode

    def kill(self) -> None:
        """End it without asking, as a power cut or the kernel would."""
        if self.is_running and self._child is not None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()

    def wait(self) -> int:
        """Wait until it ends by itself. Returns its exit status."""
        if self._child is None:
            msg = f"{self.name} was not started"
            raise RuntimeError(msg)
        return self._child.wait()

    def tail(self) -> str:
        """The end of its log, for an error message."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def wait_until(self, ready: Callable[[], bool], what: str, *, timeout_s: float = 30.0) -> None:
        """Wait until ``ready``.

        Raises:
            CommandError: it ended before, or the time is up; with the end of its log.
        """

        def ready_or_ended() -> bool:
            return not self.is_running or ready()

        if not poll_until(ready_or_ended, timeout_s=timeout_s):
            msg = f"{self.name}: not {what} within {timeout_s:g} s"
            raise CommandError(msg, hint=self._log_hint())
        if not self.is_running:
            msg = f"{self.name} ended with status {self.status} before it was {what}"
            raise CommandError(
                msg,
                hint=self._log_hint(),
            )

    def _log_hint(self) -> str:
        return f"Its log, {self.log}, ends with:\n{self.tail()}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def poll_until(done: Callable[[], bool], *, timeout_s: float) -> bool:
    """Look again and again until ``done``; False when the time is up."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def _ends_with_us() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
