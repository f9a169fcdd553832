"""Waiting for a condition, with a deadline; never for a time."""

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.01


def wait_until(predicate: Callable[[], object], timeout_s: float = 30.0, what: str = "") -> None:
    """Return once ``predicate`` holds.

    Raises:
        AssertionError: it does not hold when the time is up.
    """
    deadline_s = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() >= deadline_s:
            msg = f"not within {timeout_s:g} s: {what or predicate}"
            raise AssertionError(msg)
        time.sleep(POLL_S)


async def eventually(predicate: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """As :func:`wait_until`, without stopping the event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() >= deadline_s:
            msg = f"not within {timeout_s:g} s: {what}"
            raise AssertionError(msg)
        await asyncio.sleep(POLL_S)
