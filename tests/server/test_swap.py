"""Swaps under load: nobody notices, and nobody is answered by an engine that is gone."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from stoker_client import Client
from stoker_contract.engine import EngineSpec
from support import models
from support.server_process import ControlClient, ServerProcess, engine_pids
from support.waiting import wait_until

X = np.array([[1, 2, 3, 4]], np.float32)
CONNECTIONS = 4
REQUESTS = 10_000
SWAPS = 20
PERIOD_S = 0.010  # each connection: a hundred requests a second, whatever the answers do


@dataclass
class Answer:
    """One answered request, with the times that its client saw."""

    sent_ns: int
    digest: str
    factor: float


@dataclass
class Load:
    """Open-loop clients over kept connections."""

    path: Path
    answers: list[Answer] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have ended, one way or the other."""
        wait_until(
            lambda: len(self.answers) + len(self.failures) >= count, 150, f"{count} requests"
        )

    def run(self) -> None:
        """Send requests at their times until stopped; a late answer does not delay the next."""
        due_s = time.monotonic()
        with Client("m", socket=self.path) as client:
            while not self.stopped.wait(max(0.0, due_s - time.monotonic())):
                due_s += PERIOD_S
                sent_ns = time.monotonic_ns()
                try:
                    result = client.infer({"x": X})
                except Exception as error:  # noqa: BLE001 - every failure is counted
                    self.failures.append(error)
                else:
                    answer = Answer(sent_ns, result.digest, float(result["y"][0, 0]))
                    self.answers.append(answer)


@dataclass
class Flip:
    """One swap, as the agent saw it end."""

    done_ns: int
    digest: str


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_twenty_swaps_under_load_lose_nothing(server: ServerProcess) -> None:
    """10,000 requests over 20 swaps: none fails, none is answered by a retired engine."""
    factors = range(1, SWAPS + 3)
    first, *specs = [models.scale(f).put(server.store, f"m/{f}.0") for f in factors]
    server.write_slot("m", first)
    server.start().wait_ready("m")
    agent = server.control()
    flips = [swap_to(agent, specs.pop(0))]  # what is allocated once is allocated now
    before_kib = resident_kib(server.pid)
    load = Load(server.socket_path)
    threads = [threading.Thread(target=load.run) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        for number, spec in enumerate(specs, start=1):
            load.wait_for(REQUESTS * number // (SWAPS + 1))
            flips.append(swap_to(agent, spec))
        load.wait_for(REQUESTS)
    finally:
        load.stopped.set()
        for thread in threads:
            thread.join()

    assert load.failures == []
    assert len(load.answers) >= REQUESTS
    factor_of = {models.scale(f).digest: float(f) for f in factors}
    assert all(answer.factor == factor_of[answer.digest] for answer in load.answers)
    assert {answer.digest for answer in load.answers} == {flip.digest for flip in flips}
    assert len(flips) == SWAPS + 1
    assert retired_answers(load.answers, flips) == []
    assert len(engine_pids(server.pid)) == 1
    assert resident_kib(server.pid) < before_kib * 1.25 + 8 * 1024
    assert not server.control().status("m").degraded


def swap_to(agent: ControlClient, spec: EngineSpec) -> Flip:
    """Load, warm, swap, retire."""
    agent.load("m", spec)
    agent.warm("m")
    agent.swap("m")
    flip = Flip(time.monotonic_ns(), spec.digest)
    assert agent.retire("m").dropped == 0
    return flip


def retired_answers(answers: list[Answer], flips: list[Flip]) -> list[Answer]:
    """Answers by an engine that was replaced before their request was sent.

    Every engine serves once. A request sent after flip ``k`` was confirmed is answered by engine
    ``k``, or by ``k + 1`` when the next flip happened under way.
    """
    wrong = []
    for answer in answers:
        confirmed = sum(flip.done_ns <= answer.sent_ns for flip in flips)
        allowed = flips[max(confirmed - 1, 0) : confirmed + 1]
        if answer.digest not in {flip.digest for flip in allowed}:
            wrong.append(answer)
    return wrong
