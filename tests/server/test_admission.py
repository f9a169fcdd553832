"""Admission, deadlines and leases: bounded, counted, and fair to who was first."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from stoker_client import Client, DeadlineError, Result, UnavailableError
from support import models
from support.server_process import ServerProcess, in_flight, is_alive
from support.waiting import wait_until

X = np.array([[1, 2, 3, 4]], np.float32)
SHORT, LONG = models.turns_for(0.2), models.turns_for(0.7)


@pytest.fixture
def slow_server(short_tmp: Path) -> Iterator[ServerProcess]:
    """A server whose model takes as long as its input says, and that lets four requests in."""
    with ServerProcess(short_tmp, "--max-queue", "4") as server:
        server.write_slot("m", models.slow().put(server.store, "m/1.0"))
        agent = server.control()
        agent.load("m", models.slow().put(server.store, "m/1.0"))
        agent.swap("m")
        yield server


def ask(server: ServerProcess, x: models.FloatArray, timeout_s: float | None = None) -> Result:
    """One request over a connection of its own."""
    with Client("m", socket=server.socket_path, timeout_s=60) as client:
        return client.infer({"x": x}, timeout_s=timeout_s)


def test_a_full_queue_refuses_at_the_door(slow_server: ServerProcess) -> None:
    """What can not be served soon is refused at once, with a word about when to come back."""
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, slow_server, LONG) for _ in range(4)]
        wait_until(lambda: in_flight(slow_server) == 4, what="the queue is full")
        with pytest.raises(UnavailableError) as caught:
            ask(slow_server, X)
        answers = [future.result() for future in waiting]

    assert (caught.value.code, caught.value.status) == ("QUEUE_FULL", 429)
    assert caught.value.retry_after_s == 1.0
    assert len(answers) == 4
    assert b'code="QUEUE_FULL"} 1' in slow_server.request("GET", "/metrics")[2]


def test_a_request_that_waits_too_long_is_told_so(slow_server: ServerProcess) -> None:
    """The deadline of a request holds while it waits for its turn."""
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(ask, slow_server, LONG) for _ in range(2)]
        wait_until(lambda: in_flight(slow_server) == 2, what="the engine is busy")
        with pytest.raises(DeadlineError) as caught:
            ask(slow_server, X, timeout_s=0.05)
        for future in running:
            future.result()

    assert (caught.value.code, caught.value.status) == ("DEADLINE", 504)


def test_an_engine_that_is_too_slow_for_a_deadline_goes_on_serving(
    slow_server: ServerProcess,
) -> None:
    """The run that nobody waits for any more ends, and the next request is answered."""
    with pytest.raises(DeadlineError):
        ask(slow_server, SHORT, timeout_s=0.01)

    np.testing.assert_array_equal(ask(slow_server, X)["y"], X + 4)


def test_a_retired_engine_answers_what_it_was_asked(slow_server: ServerProcess) -> None:
    """A swap does not cut a request: the old engine closes after its last answer."""
    old, future = swap_under_a_request(slow_server, LONG)
    retired = slow_server.control().retire("m", drain_timeout_s=60)

    assert future.result().digest == models.slow().digest
    assert retired.dropped == 0
    assert not is_alive(old)


def test_a_request_cut_at_the_drain_timeout_is_counted_and_tried_again(
    slow_server: ServerProcess,
) -> None:
    """Draining ends at its timeout; the request that was cut is answered by the new engine."""
    old, future = swap_under_a_request(slow_server, models.turns_for(30))
    retired = slow_server.control().retire("m", drain_timeout_s=0.05)

    assert retired.dropped == 1
    assert not is_alive(old)
    assert future.result().digest == models.scale(3).digest


def swap_under_a_request(
    server: ServerProcess, x: models.FloatArray
) -> tuple[int, "Future[Result]"]:
    """Swap to another engine while the old one runs. Returns the old one's pid."""
    agent = server.control()
    status = agent.status("m").active
    assert status is not None
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(ask(server, x))
        except Exception as error:  # noqa: BLE001 - it belongs to who waits for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    wait_until(lambda: in_flight(server) == 1, what="the old engine runs")
    agent.load("m", models.scale(3).put(server.store, "m/2.0"))
    agent.swap("m")
    return status.pid, future
