"""What a person on the device asks for, with or without a network.

The command line writes it into the journal, so that it also counts when no agent runs.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from stoker_agent.app.deployer import Deployer
from stoker_agent.errors import JournalError
from stoker_agent.state.journal import Journal

log: Final = structlog.get_logger("stoker.wishes")


@dataclass(slots=True)
class Wishes:
    """Looks into the journal for what another process wrote there."""

    journal: Journal
    deployer: Deployer
    on_change: Callable[[], None]
    interval_s: float = 0.5
    _held: bool | None = None

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                self._look()
            except JournalError as error:
                # A full disk: the wish stays in the journal until it can be taken out.
                log.warning("wishes.not_read", code=error.code, detail=error.detail)
            await asyncio.sleep(self.interval_s)

    def _look(self) -> None:
        held = self.journal.held()
        if held != self._held:
            if self._held is not None:
                log.info("updates.held" if held else "updates.released")
                self.deployer.kick()
                self.on_change()
            self.journal.keep_essentials()  # it was another process that wrote it
            self._held = held
        for kind in self.journal.take_requests():
            log.info("local.request", kind=kind)
            if kind == "rollback":
                self.deployer.want_rollback()
            else:
                self.on_change()
