"""Tell a service manager how things are (sd_notify), when there is one."""

import asyncio
import os
import socket
from contextlib import suppress


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


async def feed_watchdog() -> None:
    """Show that the event loop turns, twice as often as asked. Runs until cancelled."""
    interval_us = os.environ.get("WATCHDOG_USEC", "")
    if not interval_us.isdigit():
        return
    while True:
        notify(WATCHDOG="1")
        await asyncio.sleep(int(interval_us) / 2e6)
