"""The data plane: requests in, answers out, for every slot. It knows no transport."""

import asyncio
import os
import random
import uuid
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from stoker_contract.codes import ReasonCode
from stoker_contract.control import ServerStatus, TelemetrySnapshot
from stoker_server import procfs, slotfiles
from stoker_server.errors import ServeError
from stoker_server.recovery import Recovery
from stoker_server.settings import Settings
from stoker_server.slot import Slot
from stoker_server.tensors import InferRequest, InferResponse


class DataPlane:
    """All slots of a server. :meth:`run` keeps them served until it is cancelled."""

    def __init__(self, settings: Settings, rng: random.Random | None = None) -> None:
        self.settings = settings
        self.server_id = uuid.uuid4().hex
        self.slots: dict[str, Slot] = {}
        self.slow_clients: Counter[str] = Counter(headers=0, body=0)  # by what did not come
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Serve what ``slots/*.json`` names, and keep it served."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for name in slotfiles.slot_names(self.settings.state_dir / "slots"):
                    self.slot_or_new(name)
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer one request.

        Raises:
            ServeError: why it was not answered.
        """
        return await self.slot(request.model).infer(request)

    def slot(self, name: str) -> Slot:
        """A slot by name.

        Raises:
            ServeError: ``UNKNOWN_MODEL``.
        """
        slot = self.slots.get(name)
        if slot is None:
            known = ", ".join(sorted(self.slots)) or "none"
            raise ServeError(ReasonCode.UNKNOWN_MODEL, f"no model {name[:64]!r}; known: {known}")
        return slot

    def slot_or_new(self, name: str) -> Slot:
        """A slot by name; a new one is kept served from now on.

        Raises:
            ServeError: ``NO_ENGINE``, the server is ending.
        """
        if name not in self.slots:
            if self._tasks is None:
                raise ServeError(ReasonCode.NO_ENGINE, "the server is ending")
            slot = self.slots[name] = Slot(name, self.settings)
            recovery = Recovery(slot, self.settings, self._rng)
            self._tasks.create_task(recovery.run(), name=f"slot.{name}")
        return self.slots[name]

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Have something done in the background, for as long as the data plane runs."""
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(work, name=name)

    def status(self) -> ServerStatus:
        """What the control socket tells."""
        return ServerStatus(
            server_id=self.server_id,
            pid=os.getpid(),
            rss_bytes=procfs.resident_bytes(os.getpid()),
            slots={name: slot.status() for name, slot in self.slots.items()},
        )

    def telemetry(self) -> TelemetrySnapshot:
        """Every count since the server started."""
        return TelemetrySnapshot(
            server_id=self.server_id,
            rss_bytes=procfs.resident_bytes(os.getpid()),
            engines=tuple(s.window() for slot in self.slots.values() for s in slot.stats),
        )

    async def close(self) -> None:
        """End every engine."""
        engines = [
            engine
            for slot in self.slots.values()
            for engine in (slot.active, slot.previous, slot.candidate)
            if engine is not None
        ]
        await asyncio.gather(*(engine.close() for engine in engines))
