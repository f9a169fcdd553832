"""Tells the service manager how the controller is (sd_notify), over the raw socket.

Does nothing where nobody listens. As the agent's, but for a loop in one thread.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

_STATUS_S: Final = 5.0

log = structlog.get_logger()


class ServiceManager:
    """``READY``, ``STATUS``, ``WATCHDOG`` and ``STOPPING``.

    Args:
        environment: of the process, where the service manager names itself.
        monotonic_s: when it is.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        half_s = int(watchdog_us) / 2e6 if watchdog_us.isdecimal() else _STATUS_S
        self._interval_s = min(half_s, _STATUS_S)
        self._monotonic_s = monotonic_s
        self._due_s = -float("inf")
        self._status = ""

    def ready(self) -> None:
        """The controller works."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The controller is about to end."""
        self._send("STOPPING=1")

    def alive(self, status: str) -> None:
        """The loop turns, and this is how things are. To be called in each turn; sent when due."""
        now_s = self._monotonic_s()
        if now_s < self._due_s and status == self._status:
            return
        self._due_s, self._status = now_s + self._interval_s, status
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("notify.failed", reason=str(error))
