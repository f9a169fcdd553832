"""What is served after something died: a worker, the server, a file."""

import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stoker_agent.state.slots import SlotFiles
from stoker_client import Client, EngineFailedError, UnavailableError
from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec, SlotFile
from support import models
from support.server_process import ServerProcess, engine_pids, in_flight, is_alive
from support.waiting import wait_until

X = np.array([[1, 2, 3, 4]], np.float32)


def good(server: ServerProcess, version: str = "1.0", factor: float = 2) -> EngineSpec:
    """An engine that serves."""
    return models.scale(factor).put(server.store, f"m/{version}")


def answer(server: ServerProcess, x: models.FloatArray = X) -> tuple[str, float]:
    """Which release answers, and by what it multiplies."""
    with Client("m", socket=server.socket_path) as client:
        result = client.infer({"x": x})
    return result.release, float(result["y"][0, 0])


def state(pid: int) -> str:
    """The state of a process, as the kernel names it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_killed_worker_is_started_again(server: ServerProcess) -> None:
    """The active engine comes back by itself, and the restart is counted."""
    server.write_slot("m", good(server))
    server.start().wait_ready("m")
    (worker,) = engine_pids(server.pid)
    os.kill(worker, signal.SIGKILL)

    assert answer(server) == ("m/1.0", 2.0)
    active = server.control().status("m").active
    assert active is not None
    assert active.restarts == 1
    assert active.pid != worker


def test_requests_that_were_in_flight_are_answered_by_the_next_worker(
    faulty_server: ServerProcess,
) -> None:
    """A crash under a request is not seen by its client: it is tried once more."""
    faulty_server.write_slot("m", good(faulty_server, "segfault-on-run-3"))
    faulty_server.start().wait_ready("m")

    assert [answer(faulty_server)[1] for _ in range(3)] == [2.0, 2.0, 2.0]
    active = faulty_server.control().status("m").active
    assert active is not None
    assert (active.restarts, active.errors) == (1, 0)


def test_an_engine_that_always_crashes_makes_way_for_the_previous_one(
    faulty_server: ServerProcess,
) -> None:
    """A crash loop ends at the engine before; the slot is degraded and says why."""
    previous = good(faulty_server, "1.0", factor=3)
    faulty_server.write_slot("m", good(faulty_server, "crash-always"), previous)
    faulty_server.start().wait_ready("m")
    agent = faulty_server.control()

    def previous_serves() -> bool:
        try:
            return answer(faulty_server) == ("m/1.0", 3.0)
        except (UnavailableError, EngineFailedError):
            return False

    wait_until(previous_serves, 60, "the previous engine serves")
    status = agent.status("m")
    assert status.degraded
    assert status.reason is ReasonCode.ENGINE_CRASH_LOOP


def test_a_frozen_worker_is_replaced(server: ServerProcess) -> None:
    """A run that never ends costs one request; the engine is killed and comes back."""
    server.add_options("--run-timeout-s", "1")
    server.write_slot("m", good(server))
    server.start().wait_ready("m")
    (worker,) = engine_pids(server.pid)
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: state(worker) == "T", what="the worker is stopped")
    with Client("m", socket=server.socket_path) as client, pytest.raises(Exception, match="took"):
        client.infer({"x": X})

    assert answer(server) == ("m/1.0", 2.0)
    assert not is_alive(worker)


def test_a_server_that_was_killed_serves_again_from_its_slot_files(server: ServerProcess) -> None:
    """No agent is needed: what the slot file names is served after kill -9."""
    server.write_slot("m", good(server))
    server.start().wait_ready("m")
    (worker,) = engine_pids(server.pid)
    server.kill()
    wait_until(lambda: not is_alive(worker), what="the orphaned worker ends")
    server.start().wait_ready("m")

    assert answer(server) == ("m/1.0", 2.0)


def test_between_crash_and_restart_the_slot_still_names_its_engine(
    faulty_server: ServerProcess,
) -> None:
    """Who is to serve has not changed: the slot is not ready, and says of whom."""
    current = good(faulty_server)
    faulty_server.write_slot("m", current)
    faulty_server.start().wait_ready("m")
    agent = faulty_server.control()
    (worker,) = engine_pids(faulty_server.pid)
    os.kill(worker, signal.SIGKILL)
    seen = []

    def restarted() -> bool:
        status = agent.status("m")
        seen.append(status.active.digest if status.active else None)
        return status.active is not None and status.active.restarts == 1

    wait_until(restarted, what="the engine is restarted")
    assert set(seen) == {current.digest}


def test_the_end_of_a_server_waits_for_its_last_answer(server: ServerProcess) -> None:
    """SIGTERM under a running request: the answer comes, then the end with status 0."""
    server.write_slot("m", models.slow().put(server.store, "m/1.0"))
    server.start().wait_ready("m")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(answer, server, models.turns_for(0.5))
        wait_until(lambda: in_flight(server) == 1, what="the engine runs")

        assert server.stop() == 0
        assert future.result()[0] == "m/1.0"


def test_readiness_is_told_to_a_service_manager(
    server: ServerProcess, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY when it listens, what it serves, STOPPING when it drains; workers never hear of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        manager.bind(str(short_tmp / "notify.sock"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(short_tmp / "notify.sock"))
        server.write_slot("m", good(server))
        server.start().wait_ready("m")
        (worker,) = engine_pids(server.pid)
        environment = Path(f"/proc/{worker}/environ").read_bytes()
        told = list(iter(lambda: manager.recv(4096), b"STATUS=serving m: m/1.0"))
        server.stop()

        assert b"READY=1" in told
        assert b"STATUS=serving m: nothing" in told or b"STATUS=serving nothing" in told
        wait_until(lambda: manager.recv(4096) == b"STOPPING=1", what="it says that it ends")
        assert b"NOTIFY_SOCKET" not in environment


def test_sockets_of_a_service_manager_are_served(server: ServerProcess, short_tmp: Path) -> None:
    """With socket activation, no request is refused while the server starts."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_tmp / "passed.sock"))
        listener.listen()
        server.write_slot("m", good(server))
        server.start(passed=listener)
        server.wait_ready("m")
        with Client("m", socket=short_tmp / "passed.sock") as client:
            result = client.infer({"x": X})

    assert result.release == "m/1.0"
    assert not server.socket_path.exists()


def test_workers_end_with_their_server(server: ServerProcess) -> None:
    """SIGTERM drains, ends every worker and leaves with status 0."""
    server.write_slot("m", good(server))
    server.start().wait_ready("m")
    (worker,) = engine_pids(server.pid)

    assert server.stop() == 0
    assert not is_alive(worker)


def test_a_damaged_blob_makes_way_for_the_previous_one(server: ServerProcess) -> None:
    """Bytes that changed on the disk are not served; the engine before is."""
    current, previous = good(server, "2.0", factor=3), good(server, "1.0")
    data = bytearray(Path(current.path).read_bytes())
    data[-1] ^= 1
    Path(current.path).write_bytes(data)
    server.write_slot("m", current, previous)
    server.start().wait_ready("m")

    assert answer(server) == ("m/1.0", 2.0)
    status = server.control().status("m")
    assert (status.degraded, status.reason) == (True, ReasonCode.DIGEST_MISMATCH)


def test_a_missing_blob_makes_way_for_the_fallback(server: ServerProcess) -> None:
    """The chain goes on to its end: current, previous, fallback."""
    current, previous = good(server, "3.0", factor=4), good(server, "2.0", factor=3)
    Path(current.path).unlink()
    Path(previous.path).unlink()
    server.write_slot("m", current, previous, fallback=good(server, "1.0"))
    server.start().wait_ready("m")

    assert answer(server) == ("m/1.0", 2.0)
    assert server.control().status("m").reason is ReasonCode.LOAD_ERROR


def test_an_entry_that_is_damaged_does_not_hide_the_others(server: ServerProcess) -> None:
    """Of a slot file with one unreadable entry, the others are still served."""
    path = server.write_slot("m", good(server, "2.0", factor=3), good(server, "1.0"))
    path.write_bytes(path.read_bytes().replace(b'"onnx"', b'"onyx"', 1))
    server.start().wait_ready("m")

    assert answer(server) == ("m/1.0", 2.0)
    assert server.control().status("m").degraded


def test_a_slot_file_that_was_cut_off_is_read_from_its_copy(server: ServerProcess) -> None:
    """The agent writes every slot file twice: damage to one costs no release."""
    agent = SlotFiles(server.state_dir / "slots")
    agent.replace(SlotFile(slot="m", current=good(server)))
    path = server.state_dir / "slots" / "m.json"
    os.truncate(path, path.stat().st_size // 2)
    server.start().wait_ready("m")

    assert answer(server) == ("m/1.0", 2.0)
    assert server.control().status("m").reason is ReasonCode.MALFORMED


def test_a_slot_file_that_is_lost_is_read_from_its_copy(server: ServerProcess) -> None:
    """A directory entry that a power cut took is no reason to serve nothing."""
    SlotFiles(server.state_dir / "slots").replace(SlotFile(slot="m", current=good(server)))
    (server.state_dir / "slots" / "m.json").unlink()
    server.start().wait_ready("m")

    assert answer(server) == ("m/1.0", 2.0)


def test_a_swap_that_is_faster_than_a_failing_start_is_not_degraded(
    server: ServerProcess,
) -> None:
    """What could not be started is not missed once something newer serves."""
    current = good(server)
    Path(current.path).unlink()
    os.mkfifo(current.path)  # opening it takes until somebody writes
    server.write_slot("m", current)
    server.start()
    agent = server.control()
    agent.load("m", good(server, "2.0", factor=3))
    agent.swap("m")
    with Path(current.path).open("wb"):
        wait_until(lambda: server.seen("engine.not_started"), what="the start has failed")

    assert answer(server) == ("m/2.0", 3.0)
    status = agent.status("m")
    assert (status.degraded, status.reason) == (False, None)


def test_a_slot_file_that_is_garbage_harms_no_other_slot(server: ServerProcess) -> None:
    """Nothing to serve is said, with the reason, and the other slots do not notice."""
    (server.state_dir / "slots" / "bad.json").write_bytes(b"{")
    server.write_slot("m", good(server))
    server.start().wait_ready("m")

    assert answer(server) == ("m/1.0", 2.0)
    bad = server.control().status("bad")
    assert (bad.ready, bad.degraded, bad.reason) == (False, True, ReasonCode.MALFORMED)
    with (
        Client("bad", socket=server.socket_path) as client,
        pytest.raises(UnavailableError) as caught,
    ):
        client.infer({"x": X})
    assert caught.value.code == "NO_ENGINE"
    assert caught.value.retry_after_s == 1.0


def test_an_engine_that_can_not_be_started_at_boot_is_tried_again(
    server: ServerProcess,
) -> None:
    """When nothing of the chain starts, the server stays up and goes on trying."""
    spec = good(server)
    blob = Path(spec.path)
    hidden = blob.rename(blob.with_name("hidden"))
    server.write_slot("m", spec)
    server.start()
    wait_until(lambda: server.seen("engine.not_started"), what="the first failure")
    hidden.rename(blob)
    server.wait_ready("m")

    assert answer(server) == ("m/1.0", 2.0)


def test_restore_goes_back_to_the_warm_engine(server: ServerProcess) -> None:
    """A rollback is one flip; asked again, it changes nothing."""
    server.write_slot("m", good(server))
    server.start().wait_ready("m")
    agent = server.control()
    loaded = agent.load("m", good(server, "2.0", factor=3))
    agent.swap("m")
    before = answer(server)
    first, second = agent.restore("m"), agent.restore("m")

    assert before == ("m/2.0", 3.0)
    assert answer(server) == ("m/1.0", 2.0)
    assert first.active == second.active == models.scale(2).digest
    wait_until(lambda: not is_alive(loaded.pid), what="the replaced engine ends")


def test_restore_starts_what_the_slot_file_names_when_nothing_is_warm(
    server: ServerProcess,
) -> None:
    """Without a warm engine, a rollback needs the disk only."""
    server.write_slot("m", good(server))
    server.start().wait_ready("m")
    agent = server.control()
    agent.load("m", good(server, "2.0", factor=3))
    agent.swap("m")
    agent.retire("m")
    agent.restore("m")

    assert answer(server) == ("m/1.0", 2.0)


def test_a_crash_loop_after_a_swap_goes_back_to_the_warm_engine(
    faulty_server: ServerProcess,
) -> None:
    """An engine that crashes in probation makes way for the one before it."""
    faulty_server.write_slot("m", good(faulty_server))
    faulty_server.start().wait_ready("m")
    agent = faulty_server.control()
    agent.load("m", good(faulty_server, "crash-always", factor=3))
    agent.swap("m")

    def old_serves() -> bool:
        try:
            return answer(faulty_server) == ("m/1.0", 2.0)
        except (UnavailableError, EngineFailedError):
            return False

    wait_until(old_serves, 60, "the old engine serves")
    assert agent.status("m").degraded
    assert agent.observe("m").digest == models.scale(2).digest


def test_a_second_server_on_the_same_folder_is_refused(
    server: ServerProcess, short_tmp: Path
) -> None:
    """Two servers never share a run directory."""
    server.start()
    second = ServerProcess(short_tmp)

    with pytest.raises(AssertionError, match="another stoker-server"):
        second.start()


def test_an_engine_command_that_does_not_exist_is_a_failed_load(short_tmp: Path) -> None:
    """A misconfigured engine command is said in the reason, and nothing crashes."""
    with ServerProcess(short_tmp, engine=(f"{sys.executable}-not-there",)) as server:
        server.write_slot("m", good(server))
        agent = server.control()
        with pytest.raises(Exception, match="can not be run"):
            agent.load("m", good(server))
