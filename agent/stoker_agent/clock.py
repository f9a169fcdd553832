"""The clocks of the agent: one for durations, one for time stamps. Tests pass their own."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def monotonic_s(self) -> float:
        """Seconds since an unknown start; for deadlines and durations."""
        ...

    def unix_s(self) -> float:
        """Seconds since 1970, as the machine believes; never for timers."""
        ...


class SystemClock:
    """The clocks of the machine."""

    def monotonic_s(self) -> float:
        """Seconds since an unknown start."""
        return time.monotonic()

    def unix_s(self) -> float:
        """Seconds since 1970, as the machine believes."""
        return time.time()


def timestamp(unix_s: float) -> str:
    """A time as documents carry it: UTC, ISO 8601, to the millisecond."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
