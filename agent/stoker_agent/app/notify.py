"""Tells systemd how the agent is, over the raw socket: no library is needed for a datagram."""

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable
from typing import Final

import structlog

DEFAULT_INTERVAL_S: Final = 5.0

log: Final = structlog.get_logger("stoker.notify")


class Notifier:
    """``READY``, ``STATUS`` and ``WATCHDOG``. Does nothing where nobody listens."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        values = dict(os.environ) if environment is None else environment
        address = values.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us = values.get("WATCHDOG_USEC", "")
        self._interval_s = int(watchdog_us) / 2e6 if watchdog_us.isdecimal() else None

    def ready(self) -> None:
        """The agent works."""
        self._send("READY=1")

    def reloading(self, reload: Callable[[], None]) -> None:
        """Do ``reload`` while the service manager knows of it (``systemctl reload``)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        reload()
        self._send("READY=1")

    def stopping(self) -> None:
        """The agent is about to end."""
        self._send("STOPPING=1")

    async def feed(self, healthy: Callable[[], bool], status: Callable[[], str]) -> None:
        """Pet the watchdog for as long as the agent is healthy; an ill one is restarted."""
        last = ""
        while True:
            text = status()
            if text != last:
                self._send(f"STATUS={text}")
                last = text
            if healthy():
                self._send("WATCHDOG=1")
            else:
                log.error("agent.ill", effect="the watchdog is not fed")
            # Not less often: people read the status, and a rotation waits for it.
            await asyncio.sleep(min(self._interval_s or math.inf, DEFAULT_INTERVAL_S))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("notify.failed", reason=str(error))
