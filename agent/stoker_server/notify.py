"""Tell a service manager how things are (sd_notify), when there is one."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

STATUS_S: Final = 2.0


def notify(**values: str) -> None:
    """Send ``READY=1``, ``STATUS=…`` and the like. Does nothing without a service manager."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    lines = "\n".join(f"{name}={value}" for name, value in values.items())
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(lines.encode(), address)


async def keep_telling(status: Callable[[], str]) -> None:
    """Say what is served when that changes, and that the event loop turns. Runs until cancelled."""
    interval_us = os.environ.get("WATCHDOG_USEC", "")
    half_s = int(interval_us) / 2e6 if interval_us.isdigit() else STATUS_S
    told = ""
    while True:
        if (text := status()) != told:
            notify(STATUS=text)
            told = text
        notify(WATCHDOG="1")
        await asyncio.sleep(min(half_s, STATUS_S))
