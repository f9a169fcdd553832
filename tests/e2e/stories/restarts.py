"""Processes end in every way there is, and come back."""

from contextlib import ExitStack

from e2e.devices import AGENT, SERVER
from e2e.faults import changed
from e2e.load import load, lost
from e2e.proof import Proof
from stoker_cli.demo.traffic import Window

WATCHDOG_S = 5
RATE_HZ = 20
"""The queue of a slot has room for what is sent at this rate while a slow machine starts again."""


def agent_restart(proof: Proof) -> None:
    """Inference does not depend on the agent."""
    device = proof.device(1)
    with load(device, proof.releases.frames_file, proof.folder, RATE_HZ) as sent:
        device.restart(AGENT)
        before = device.restarts(AGENT)
        device.signal("KILL", device.pid(AGENT))
        device.wait_for_restart(AGENT, before)
        sent.wait_for_more()
        window = sent.stop()
    proof.promise(
        "the agent is restarted, then killed: inference goes on",
        lost(window),
        held=not window.failed,
    )


def server_restart(proof: Proof) -> None:
    """`systemctl restart` of the server refuses nobody."""
    device = proof.device(2)
    with load(device, proof.releases.frames_file, proof.folder, RATE_HZ) as sent:
        device.restart(SERVER)
        sent.wait_for_more()
        window = sent.stop()
    proof.promise(
        "the server is restarted in order: nobody is refused",
        f"{lost(window)}; {_longest(window)}",
        held=not window.failed,
    )


def kills(proof: Proof) -> None:
    """An engine and the server are killed: they serve again by themselves."""
    device = proof.device(3)
    with load(device, proof.releases.frames_file, proof.folder, RATE_HZ) as sent:
        before = set(device.engine_pids())
        for pid in before:
            device.signal("KILL", pid)
        proof.wait_until_serving(device)
        sent.wait_for_more()
        window = sent.stop()
    in_flight = len(window.failed)
    proof.promise(
        "an engine is killed: it is started again, and only what it was working on is lost",
        f"{lost(window)}; {_longest(window)}",
        held=bool(before) and not before & set(device.engine_pids()) and in_flight <= 1,
    )
    with load(device, proof.releases.frames_file, proof.folder, RATE_HZ) as sent:
        count = device.restarts(SERVER)
        device.signal("KILL", device.pid(SERVER))
        device.wait_for_restart(SERVER, count)
        proof.wait_until_serving(device)
        sent.wait_for_more()
        window = sent.stop()
    proof.promise(
        "the server is killed: only what was in it is lost, the rest waits in its socket",
        f"{lost(window)}; {_longest(window)}",
        held=not window.answers[-1].error and len(window.failed) <= 2,
    )


def watchdogs(proof: Proof) -> None:
    """A process that stands still is noticed, ended and started again."""
    frozen = {AGENT: proof.device(1), SERVER: proof.device(2)}
    with ExitStack() as quick:
        for unit, device in frozen.items():
            quick.enter_context(changed(device, unit, f"WatchdogSec={WATCHDOG_S}"))
        before = {unit: device.restarts(unit) for unit, device in frozen.items()}
        for unit, device in frozen.items():
            device.signal("STOP", device.pid(unit))
        for unit, device in frozen.items():
            device.wait_for_restart(unit, before[unit])
            proof.wait_until_serving(device)
            proof.promise(
                f"{unit} stands still (SIGSTOP): its watchdog starts it again",
                "restarted, and answers are right",
                held="watchdog" in device.journal_of_manager(unit).lower(),
            )


def _longest(window: Window) -> str:
    answered = [answer.total_ns for answer in window.answers if not answer.error]
    return f"the longest answer took {max(answered, default=0) / 1e9:.2f} s"
