"""Candidates of every bad kind: whatever they do, the active engine goes on serving."""

import os
from pathlib import Path

import numpy as np
import pytest

from stoker_client import Client
from stoker_contract import control
from stoker_contract.codes import ReasonCode
from stoker_contract.control import Op
from support import models
from support.server_process import (
    ControlClient,
    RefusedError,
    ServerProcess,
    engine_pids,
    is_alive,
)
from support.waiting import wait_until

X = np.array([[1, 2, 3, 4]], np.float32)


def serve_scale(server: ServerProcess, factor: float = 2) -> ControlClient:
    """Start the server with a good engine in slot ``m``."""
    server.write_slot("m", models.scale(factor).put(server.store, "m/1.0"))
    server.start().wait_ready("m")
    return server.control()


def still_serves(server: ServerProcess, factor: float = 2) -> None:
    """The active engine answers, nothing else is left, and the slot is healthy."""
    with Client("m", socket=server.socket_path) as client:
        result = client.infer({"x": X})
    np.testing.assert_array_equal(result["y"], X * factor)
    assert result.release == "m/1.0"
    status = server.control().status("m")
    assert status.candidate is None
    assert not status.degraded
    wait_until(lambda: len(engine_pids(server.pid)) == 1, what="one engine process is left")


def test_a_good_candidate_goes_all_the_way(server: ServerProcess, tmp_path: Path) -> None:
    """Load, warm, golden, swap, observe, retire: the one road to serving."""
    agent = serve_scale(server)
    spec = models.scale(3).put(server.store, "m/2.0")
    golden = models.scale_golden(tmp_path / "golden.npz", 3)

    loaded = agent.load("m", spec)
    warmed = agent.warm("m")
    result = agent.golden("m", tmp_path / "golden.npz", golden, min_samples=50)
    swapped = agent.swap("m")
    with Client("m", socket=server.socket_path) as client:
        answer = client.infer({"x": X})
    observed = agent.observe("m")
    retired = agent.retire("m")

    assert (loaded.digest, loaded.io) == (spec.digest, spec.io)
    assert warmed.runs >= 20
    assert (result.score, result.samples, result.latency_samples) == (1.0, 4, 50)
    assert result.active_p50_ms is not None
    assert (swapped.active, swapped.previous) == (spec.digest, models.scale(2).digest)
    np.testing.assert_array_equal(answer["y"], X * 3)
    assert (observed.digest, observed.requests, observed.errors) == (spec.digest, 1, 0)
    assert observed.total.count == 1
    assert retired.dropped == 0
    assert engine_pids(server.pid) == [loaded.pid]


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("segfault-on-load", ReasonCode.LOAD_ERROR),
        ("hang-on-load", ReasonCode.LOAD_TIMEOUT),
        ("wrong-digest", ReasonCode.DIGEST_MISMATCH),
    ],
)
def test_a_candidate_that_does_not_load_changes_nothing(
    faulty_server: ServerProcess, version: str, code: ReasonCode
) -> None:
    """A crash, a hang or a lie while loading is refused by its own code."""
    agent = serve_scale(faulty_server)
    spec = models.scale(3).put(faulty_server.store, f"m/{version}")

    refused(code, lambda: agent.load("m", spec, timeout_s=3.0))
    still_serves(faulty_server)


def test_a_candidate_that_segfaults_in_warm_up_changes_nothing(
    faulty_server: ServerProcess,
) -> None:
    """A crash in a run ends the candidate only."""
    agent = serve_scale(faulty_server)
    agent.load("m", models.scale(3).put(faulty_server.store, "m/segfault-on-run-3"))

    error = refused(ReasonCode.WARMUP_ERROR, lambda: agent.warm("m"))
    assert "SIGSEGV" in error.detail
    still_serves(faulty_server)


def test_a_candidate_that_hangs_is_killed_in_warm_up(server: ServerProcess) -> None:
    """A model that never ends is ended, and nobody waits for it."""
    agent = serve_scale(server)
    loaded = agent.load("m", models.hanging().put(server.store, "m/hanging"))

    refused(ReasonCode.WARMUP_ERROR, lambda: agent.warm("m", timeout_s=1.0))
    assert not is_alive(loaded.pid)
    still_serves(server)


def test_a_candidate_that_eats_memory_hits_its_own_limit(server: ServerProcess) -> None:
    """A memory bomb fails under its limit; the machine and the active engine do not notice."""
    agent = serve_scale(server)
    spec = models.memory_bomb().put(server.store, "m/bomb")
    agent.load("m", spec, memory_limit_bytes=512 * 1024**2)

    refused(ReasonCode.MEMORY, lambda: agent.warm("m"))
    agent.abort("m")
    still_serves(server)


@pytest.mark.parametrize("bad", [models.scale(2.5), models.not_a_number()])
def test_a_candidate_that_answers_wrong_scores_nothing(
    server: ServerProcess, tmp_path: Path, bad: models.Model
) -> None:
    """Wrong answers and NaN do not agree with the golden set; the agent then aborts."""
    agent = serve_scale(server)
    agent.load("m", bad.put(server.store, "m/wrong"))
    golden = models.scale_golden(tmp_path / "golden.npz", 3)
    result = agent.golden("m", tmp_path / "golden.npz", golden)
    agent.abort("m")

    assert result.score == 0.0
    assert result.worst_error > 0
    still_serves(server)


def test_an_unsafe_candidate_is_not_loaded(server: ServerProcess) -> None:
    """The static policy stands before the runtime, in the worker as in the agent."""
    agent = serve_scale(server)
    spec = models.external().put(server.store, "m/external")

    refused(ReasonCode.UNSAFE_MODEL, lambda: agent.load("m", spec))
    still_serves(server)


def test_a_candidate_whose_blob_is_damaged_is_not_loaded(server: ServerProcess) -> None:
    """What was verified is what is loaded: bytes that changed since are refused."""
    agent = serve_scale(server)
    spec = models.scale(3).put(server.store, "m/2.0")
    data = bytearray(Path(spec.path).read_bytes())
    data[-1] ^= 1
    Path(spec.path).write_bytes(data)

    refused(ReasonCode.DIGEST_MISMATCH, lambda: agent.load("m", spec))
    still_serves(server)


def test_a_damaged_golden_file_is_refused(server: ServerProcess, tmp_path: Path) -> None:
    """A golden file is hashed before it is believed."""
    agent = serve_scale(server)
    agent.load("m", models.scale(3).put(server.store, "m/2.0"))
    path = tmp_path / "golden.npz"
    golden = models.scale_golden(path, 3)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")

    refused(ReasonCode.DIGEST_MISMATCH, lambda: agent.golden("m", path, golden))


def test_a_golden_file_that_does_not_fit_is_refused(server: ServerProcess, tmp_path: Path) -> None:
    """Samples of other tensors than the engine takes say nothing about it."""
    agent = serve_scale(server)
    agent.load("m", models.scale(3).put(server.store, "m/2.0"))
    path = tmp_path / "golden.npz"
    golden = models.scale_golden(path, 3, width=5)

    refused(ReasonCode.MALFORMED, lambda: agent.golden("m", path, golden))


def test_aborting_ends_a_load_that_hangs(faulty_server: ServerProcess) -> None:
    """The agent can give up at once, whatever the candidate does."""
    agent = serve_scale(faulty_server)
    spec = models.scale(3).put(faulty_server.store, "m/hang-on-load")
    args = control.Load(slot="m", spec=spec, timeout_s=100.0)
    other = faulty_server.control()
    request = control.Request(id=1, op=Op.LOAD, args=args.to_object())
    other.send(request.encode() + b"\n")
    wait_until(lambda: len(engine_pids(faulty_server.pid)) == 2, what="the candidate starts")
    agent.abort("m")

    assert control.Response.parse(other.read_line()).code is ReasonCode.NO_ENGINE
    still_serves(faulty_server)


def test_loading_twice_starts_one_worker(server: ServerProcess) -> None:
    """A repeated load answers with the candidate that is there."""
    agent = serve_scale(server)
    spec = models.scale(3).put(server.store, "m/2.0")

    assert agent.load("m", spec).pid == agent.load("m", spec).pid
    assert len(engine_pids(server.pid)) == 2


def test_another_candidate_replaces_the_first(server: ServerProcess) -> None:
    """There is one candidate at a time."""
    agent = serve_scale(server)
    first = agent.load("m", models.scale(3).put(server.store, "m/2.0"))
    second = agent.load("m", models.scale(4).put(server.store, "m/3.0"))

    assert not is_alive(first.pid)
    assert is_alive(second.pid)


@pytest.mark.parametrize("op", [Op.SWAP, Op.WARM, Op.OBSERVE])
def test_operations_without_a_candidate_are_refused(server: ServerProcess, op: Op) -> None:
    """Nothing to act on is a refusal by code, not an accident."""
    agent = serve_scale(server)

    refused(ReasonCode.NO_ENGINE, lambda: agent.ask(op, control.SlotOnly(slot="m")))
    refused(ReasonCode.UNKNOWN_MODEL, lambda: agent.ask(op, control.SlotOnly(slot="other")))


def test_the_first_candidate_of_a_slot_needs_nothing_before_it(server: ServerProcess) -> None:
    """On a fresh device the first engine is loaded, scored and swapped in."""
    server.start()
    agent = server.control()
    agent.load("m", models.scale(3).put(server.store, "m/1.0"))
    swapped = agent.swap("m")

    assert swapped.previous is None
    still_serves(server, factor=3)


@pytest.mark.skipif(os.geteuid() != 0, reason="raising a priority takes privileges")
def test_a_candidate_waits_for_the_processor_until_it_serves(server: ServerProcess) -> None:
    """Every thread of a candidate is nice, and none of them once it serves."""
    agent = serve_scale(server)
    own = os.getpriority(os.PRIO_PROCESS, server.pid)
    pid = agent.load("m", models.scale(3).put(server.store, "m/2.0")).pid
    before = niceness_of_threads(pid)
    agent.swap("m")

    assert before == {min(own + 10, 19)}
    assert niceness_of_threads(pid) == {own}


def niceness_of_threads(pid: int) -> set[int]:
    """The niceness of every thread of a process."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads}


def refused(code: ReasonCode, ask: object) -> RefusedError:
    """Assert that an operation is refused by a code."""
    assert callable(ask)
    with pytest.raises(RefusedError) as caught:
        ask()
    assert caught.value.code is code, caught.value
    return caught.value
