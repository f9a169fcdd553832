"""What the command line shows of a device, from its own disk and its own server."""

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from stoker_agent.app.agent import CONTROL_SOCKET, JOURNAL
from stoker_agent.config import Config
from stoker_agent.core.record import Record
from stoker_agent.engines.control_client import ControlClient
from stoker_agent.errors import ControlError
from stoker_agent.host.figures import Machine
from stoker_agent.host.profile import detect_profile
from stoker_agent.state.journal import Journal
from stoker_agent.state.slots import SlotFiles
from stoker_agent.state.store import file_digest
from stoker_contract.control import ServerStatus
from stoker_contract.engine import SlotFile

CONNECT_S: Final = 3.0
LOW_DISK_BYTES: Final = 256 * 1024**2


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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: what to do about it; empty when it is fine.
    """

    name: str
    fine: bool
    found: str
    advice: str = ""


def examine(config: Config) -> list[Finding]:
    """Look at everything an agent depends on."""
    checks = (
        _examine_journal,
        _examine_slots,
        _examine_server,
        _examine_disk,
        _examine_clock,
        _examine_roots,
        _examine_broker,
        _examine_repository,
    )
    return [check(config) for check in checks]


def _examine_journal(config: Config) -> Finding:
    journal = open_journal(config)
    try:
        found = f"epoch {journal.epoch()}, {journal.depth()} messages wait"
        torn = sorted(config.paths.state_dir.glob(f"{JOURNAL}.corrupt-*"))
    finally:
        journal.close()
    advice = f"a torn journal was set aside as {torn[-1]}: look at the disk" if torn else ""
    return Finding("journal", not torn, found, advice)


def _examine_slots(config: Config) -> Finding:
    bad = []
    files = SlotFiles(config.paths.state_dir / "slots").read_all()
    for name, file in files.items():
        path = config.paths.state_dir / "store" / "sha256" / file.current.digest
        if not path.is_file() or file_digest(path) != file.current.digest:
            bad.append(f"{name}: {file.current.release}")
    found = ", ".join(f"{n}={f.current.release}" for n, f in files.items()) or "nothing committed"
    advice = f"bytes are missing or rotten ({', '.join(bad)}): roll the release out again"
    return Finding("slots", not bad, found, advice if bad else "")


def _examine_server(config: Config) -> Finding:
    server = ask_server(config)
    if server is None:
        path = config.paths.run_dir / CONTROL_SOCKET
        return Finding("server", fine=False, found=f"no answer at {path}", advice="start it")
    ill = [name for name, slot in server.slots.items() if not slot.ready or slot.degraded]
    advice = f"slots are not well: {', '.join(ill)}" if ill else ""
    return Finding("server", not ill, f"{server.server_id}, {len(server.slots)} slots", advice)


def _examine_disk(config: Config) -> Finding:
    free = Machine(detect_profile({}), config.paths.state_dir).disk().free_bytes
    advice = "make room, or updates fail with DISK_SPACE"
    fine = free >= LOW_DISK_BYTES
    return Finding("disk", fine, f"{free / 1024**2:.0f} MiB free", "" if fine else advice)


def _examine_clock(config: Config) -> Finding:
    trusted = Machine(detect_profile({}), config.paths.state_dir).time_trusted()
    advice = "enable time synchronisation: expiry of signatures is checked against this clock"
    found = "synchronised" if trusted else "not synchronised"
    return Finding("clock", trusted, found, "" if trusted else advice)


def _examine_roots(config: Config) -> Finding:
    paths = (config.trust.image_root, config.trust.director_root)
    missing = [str(path) for path in paths if not path.is_file() or not path.stat().st_size]
    found = "both roots are here" if not missing else f"missing or empty: {', '.join(missing)}"
    return Finding("trust", not missing, found, "provision them again" if missing else "")


def _examine_broker(config: Config) -> Finding:
    mqtt = config.mqtt
    where = f"{mqtt.host}:{mqtt.port}"
    try:
        with socket.create_connection((mqtt.host, mqtt.port), timeout=CONNECT_S) as raw:
            if mqtt.tls is None:
                return Finding("broker", fine=True, found=f"{where} answers, without TLS")
            context = ssl.create_default_context(cafile=str(mqtt.tls.ca))
            context.load_cert_chain(mqtt.tls.certificate, mqtt.tls.key)
            with context.wrap_socket(raw, server_hostname=mqtt.host) as secured:
                found = f"{where} answers with {secured.version()}"
                return Finding("broker", fine=True, found=found)
    except OSError as error:
        advice = "check [mqtt] in the configuration, the network and the certificates"
        return Finding("broker", fine=False, found=f"{where}: {error}", advice=advice)


def _examine_repository(config: Config) -> Finding:
    url = urlsplit(config.repository.url)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with socket.create_connection((url.hostname or "", port), timeout=CONNECT_S):
            return Finding("repository", fine=True, found=f"{config.repository.url} answers")
    except OSError as error:
        found = f"{config.repository.url}: {error}"
        advice = "check [repository] url and the network; what runs here is not affected"
        return Finding("repository", fine=False, found=found, advice=advice)
