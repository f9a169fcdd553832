"""What the command line shows of a device, from its own disk and its own server."""

import asyncio
from contextlib import suppress
from typing import Any

from stoker_agent.app.agent import CONTROL_SOCKET, JOURNAL
from stoker_agent.config import Config
from stoker_agent.core.record import Record
from stoker_agent.engines.control_client import ControlClient
from stoker_agent.errors import ControlError
from stoker_agent.state.journal import Journal
from stoker_agent.state.slots import SlotFiles
from stoker_contract.control import ServerStatus
from stoker_contract.engine import SlotFile


def open_journal(config: Config) -> Journal:
    """The journal of the device, also while the agent runs."""
    return Journal(config.paths.state_dir / JOURNAL)


def ask_server(config: Config) -> ServerStatus | None:
    """What the server says; None if it does not answer."""

    async def ask() -> ServerStatus | None:
        client = ControlClient(config.paths.run_dir / CONTROL_SOCKET)
        with suppress(ControlError):
            return await client.status()
        return None

    return asyncio.run(ask())


def status(config: Config) -> dict[str, Any]:
    """Everything about the device, as plain values."""
    journal = open_journal(config)
    try:
        unfinished, history = journal.unfinished(), journal.history(1)
        held, outbox_depth = journal.held(), journal.depth()
        bad = {digest: str(code) for digest, code in journal.bad_digests().items()}
        generation = journal.generation()[0]
    finally:
        journal.close()
    server = ask_server(config)
    slots = SlotFiles(config.paths.state_dir / "slots").read_all()
    return {
        "device": config.device.id,
        "fleet": config.device.fleet,
        "generation": generation,
        "held": held,
        "server": server.server_id if server else None,
        "slots": {
            name: _slot(slots.get(name), server)
            for name in sorted({*slots, *(server.slots if server else {})})
        },
        "deployment": deployment(unfinished[0] if unfinished else None),
        "last_deployment": deployment(history[0] if history else None),
        "bad_digests": bad,
        "outbox_depth": outbox_depth,
    }


def _slot(file: SlotFile | None, server: ServerStatus | None) -> dict[str, Any]:
    now = server.slots.get(file.slot) if server and file else None
    return {
        "serving": now.active.release if now and now.active else None,
        "digest": now.active.digest if now and now.active else None,
        "ready": bool(now and now.ready),
        "degraded": now.detail or str(now.reason) if now and now.degraded else None,
        "after_boot": file.current.release if file else None,
        "previous": file.previous.release if file and file.previous else None,
    }


def deployment(record: Record | None) -> dict[str, Any] | None:
    """One deployment, as plain values."""
    if record is None:
        return None
    progress = record.progress
    return {
        "id": record.deployment_id,
        "generation": record.generation,
        "accepted": record.intent.accepted,
        "releases": {slot: d.release for slot, d in record.intent.desired.slots.items()},
        "phase": str(progress.phase),
        "attempt": progress.attempt,
        "outcome": str(progress.outcome) if progress.outcome else None,
        "code": str(progress.code) if progress.code else None,
        "stack": " > ".join(progress.stack),
        "detail": progress.detail,
        "measured": progress.measured.model_dump(exclude_none=True),
    }


def history(config: Config, limit: int) -> list[dict[str, Any]]:
    """The last deployments, newest first."""
    journal = open_journal(config)
    try:
        records = journal.history(limit)
    finally:
        journal.close()
    return [shown for record in records if (shown := deployment(record))]
