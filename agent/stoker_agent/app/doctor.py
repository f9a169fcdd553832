"""Looks at everything a device depends on, and says what to do about what is wrong.

Nothing is changed and nothing is created: it also answers on a box that was never started.
"""

import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from stoker_agent.app import reach
from stoker_agent.app.agent import JOURNAL
from stoker_agent.app.local import ask_server, deployment, open_journal
from stoker_agent.config import Config
from stoker_agent.host.figures import clock_synchronised, disk, memory
from stoker_agent.host.profile import RUNTIMES, installed_runtimes
from stoker_agent.state.slots import SlotFiles
from stoker_agent.state.store import file_digest
from stoker_contract.codes import Outcome
from stoker_contract.engine import SlotFile

LOW_DISK_BYTES: Final = 256 * 1024**2
LOW_MEMORY_BYTES: Final = 64 * 1024**2
LONG_OUTBOX: Final = 500
HEALTHY_OUTCOMES: Final = (Outcome.SUCCEEDED, Outcome.NOOP, Outcome.SUPERSEDED)


class Health(StrEnum):
    """How a thing is. A warning alone does not make a device ill."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: what to do about it; empty when it is well.
    """

    name: str
    health: Health
    found: str
    advice: str = ""


def examine(config: Config) -> list[Finding]:
    """Look at everything; each finding that is not well says what to do."""
    return [finding for check in CHECKS for finding in check(config)]


def _well(name: str, found: str) -> Finding:
    return Finding(name, Health.OK, found)


def _either(name: str, trouble: bool, found: str, advice: str, health: Health) -> Finding:  # noqa: FBT001 - reads like the sentence it makes
    return Finding(name, health, found, advice) if trouble else _well(name, found)


def _state(config: Config) -> Iterable[Finding]:
    folder = config.paths.state_dir
    if not folder.is_dir():
        advice = "the agent has not run yet: systemctl start stoker-agent"
        yield Finding("state", Health.BAD, f"there is no {folder}", advice)
        return
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    advice = "the disk is mounted read-only, often after an error: see `dmesg`, then remount it"
    yield _either("state", bool(read_only), str(folder), advice, Health.BAD)
    free = disk(folder).free_bytes
    found = f"{free / 1024**2:.0f} MiB free"
    advice = "make room, or updates fail with DISK_SPACE; what serves is not affected"
    yield _either("disk", free < LOW_DISK_BYTES, found, advice, Health.BAD)


def _memory(_: Config) -> Iterable[Finding]:
    free = memory().free_bytes
    advice = "a new engine will not fit beside the old one: updates fail with MEMORY"
    found = f"{free / 1024**2:.0f} MiB available"
    yield _either("memory", free < LOW_MEMORY_BYTES, found, advice, Health.WARN)


def _agent(config: Config) -> Iterable[Finding]:
    with suppress(OSError):
        descriptor = os.open(config.paths.state_dir / "agent.lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _well("agent", "runs")
            return
        finally:
            os.close(descriptor)
    advice = "systemctl start stoker-agent, and `journalctl -u stoker-agent` says why it ended"
    yield Finding("agent", Health.BAD, "does not run: nothing is updated", advice)


def _journal(config: Config) -> Iterable[Finding]:
    path = config.paths.state_dir / JOURNAL
    if not path.is_file():
        return
    journal = open_journal(config)
    try:
        epoch, depth, held = journal.epoch(), journal.depth(), journal.held()
        last = deployment(next(iter(journal.history(1)), None))
    finally:
        journal.close()
    torn = sorted(path.parent.glob(f"{JOURNAL}.corrupt-*"))
    found = f"epoch {epoch}"
    advice = f"a torn journal was set aside as {torn[-1:]}: check the disk (smartctl, dmesg)"
    yield _either("journal", bool(torn), found, advice, Health.WARN)
    advice = "the broker is not reached, or takes nothing; see the findings about it"
    yield _either("outbox", depth > LONG_OUTBOX, f"{depth} messages wait", advice, Health.WARN)
    advice = "`stoker-agent release` allows updates again"
    yield _either("updates", held, "held" if held else "allowed", advice, Health.WARN)
    if last is not None:
        outcome = last["outcome"] or f"is {last['phase']}"
        trouble = bool(last["outcome"]) and last["outcome"] not in HEALTHY_OUTCOMES
        found = f"{last['id']}: {outcome}{' ' + last['code'] if last['code'] else ''}"
        yield _either("deployment", trouble, found, "`stoker-agent why` says more", Health.WARN)


def _slots(config: Config) -> Iterable[Finding]:
    folder = config.paths.state_dir / "slots"
    if not folder.is_dir():
        return
    slots = SlotFiles(folder)
    files = slots.read_all()
    rotten = [name for name, file in files.items() if not _whole(config, file)]
    if slots.unreadable():
        rotten.append("a slot file that can not be read")
    found = ", ".join(f"{n}={f.current.release}" for n, f in files.items()) or "nothing committed"
    advice = f"bytes are missing or rotten ({', '.join(rotten)}): roll the release out again"
    yield _either("slots", bool(rotten), found, advice, Health.BAD)


def _whole(config: Config, file: SlotFile) -> bool:
    path = config.paths.state_dir / "store" / "sha256" / file.current.digest
    return path.is_file() and file_digest(path) == file.current.digest


def _server(config: Config) -> Iterable[Finding]:
    server = ask_server(config)
    if server is None:
        advice = "systemctl start stoker-server, and `journalctl -u stoker-server` says why"
        yield Finding("server", Health.BAD, "does not answer", advice)
        return
    ill = [name for name, slot in server.slots.items() if not slot.ready or slot.degraded]
    advice = f"not ready or degraded: {', '.join(ill)}; `stoker-agent status` says more"
    yield _either("server", bool(ill), f"{len(server.slots)} slots", advice, Health.BAD)


def _runtimes(_: Config) -> Iterable[Finding]:
    found = ", ".join(f"{name} {version}" for name, version in installed_runtimes().items())
    advice = f"nothing can run here: install one of {', '.join(RUNTIMES)} into this environment"
    yield _either("runtimes", not found, found or "none", advice, Health.BAD)


def _clock(_: Config) -> Iterable[Finding]:
    trusted = clock_synchronised()
    advice = "enable timesyncd or chrony: expiry of signatures is checked against this clock"
    found = "synchronised" if trusted else "not synchronised"
    yield _either("clock", not trusted, found, advice, Health.WARN)


def _reach(check: Callable[[Config], reach.Answer], name: str) -> Callable[[Config], list[Finding]]:
    def look(config: Config) -> list[Finding]:
        answer = check(config)
        if not answer.advice:
            return [_well(name, answer.found)]
        health = Health.WARN if answer.still_works else Health.BAD
        return [Finding(name, health, answer.found, answer.advice)]

    return look


CHECKS: Final[tuple[Callable[[Config], Iterable[Finding]], ...]] = (
    _state,
    _memory,
    _agent,
    _journal,
    _slots,
    _server,
    _reach(reach.inference_socket, "socket"),
    _runtimes,
    _clock,
    _reach(reach.roots, "trust"),
    _reach(reach.certificate, "certificate"),
    _reach(reach.broker, "broker"),
    _reach(reach.repository, "repository"),
)
"""In the order in which a person would look: first what serves, then what updates need."""
