"""Keeps the last words of the server, and says when they change what is reported."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from stoker_agent.app.reporter import Reporter
from stoker_agent.core.ports import ServerControl
from stoker_agent.errors import ControlError
from stoker_contract.control import ServerStatus

log: Final = structlog.get_logger("stoker.server")


@dataclass(slots=True)
class ServerWatch:
    """Polls the server; the reported state is built from the last answer."""

    server: ServerControl
    reporter: Reporter
    on_change: Callable[[], None]
    interval_s: float = 1.0

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self.interval_s)

    async def look(self) -> None:
        """Ask once, now."""
        try:
            status: ServerStatus | None = await self.server.status()
        except ControlError as error:
            if self.reporter.server is not None:
                log.warning("server.lost", reason=error.detail)
            status = None
        before, self.reporter.server = self.reporter.server, status
        if _essence(before) != _essence(status):
            if status is not None and (before is None or before.server_id != status.server_id):
                log.info("server.found", server_id=status.server_id)
            self.on_change()


def _essence(status: ServerStatus | None) -> object:
    """What a change of is worth a report; counters are not."""
    if status is None:
        return None
    return {
        name: (
            slot.active and slot.active.digest,
            slot.candidate and slot.candidate.digest,
            slot.ready,
            slot.degraded,
            slot.reason,
        )
        for name, slot in status.slots.items()
    }
