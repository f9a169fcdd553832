"""Clients that begin a request and do not send it: told so, dropped, counted, and no burden."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from stoker_client import Client
from support import models
from support.server_process import ServerProcess
from support.waiting import wait_until

X = np.array([[1, 2, 3, 4]], np.float32)
INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"


@pytest.fixture
def server(short_tmp: Path) -> Iterator[ServerProcess]:
    """A server that has little patience."""
    server = ServerProcess(short_tmp, "--receive-timeout-s", "0.5")
    server.write_slot("m", models.scale(2).put(server.store, "m/1.0"))
    with server:
        server.wait_ready("m")
        yield server


def trickle(server: ServerProcess, first: bytes, drop: bytes) -> bytes:
    """Send ``first``, then ``drop`` again and again until the server ends the connection.

    Returns what it said.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(server.socket_path))
        client.sendall(first)
        while drop and not select.select([client], [], [], 0.05)[0]:
            client.sendall(drop)
        said = b""
        with suppress(ConnectionResetError):  # the last drop came when nobody read any more
            while data := client.recv(65536):
                said += data
    return said


def dropped(server: ServerProcess, part: str) -> int:
    """How many clients were dropped for what they did not send."""
    text = server.request("GET", "/metrics")[2].decode()
    line = next(
        li for li in text.splitlines() if li.startswith(f'stoker_slow_clients_total{{part="{part}"')
    )
    return int(line.split()[-1])


@pytest.mark.parametrize(
    ("first", "drop", "part"),
    [
        (INFER + b"\r\n", b"", "body"),
        (INFER + b"\r\n", b"x", "body"),
        (INFER, b"", "headers"),
        (INFER, b"x: y\r\n", "headers"),
        (b"", b"", "headers"),
    ],
    ids=["no-body", "body-in-drops", "half-the-headers", "headers-in-drops", "silence"],
)
def test_a_request_that_does_not_come_is_told_and_dropped(
    server: ServerProcess, first: bytes, drop: bytes, part: str
) -> None:
    """408 in the form of the protocol, the connection is closed, and the counter says why."""
    before = dropped(server, part)
    said = trickle(server, first, drop)
    head, _, body = said.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 408 ")
    assert "REQUEST_TIMEOUT" in json.loads(body)["error"]
    assert dropped(server, part) == before + 1


def test_slow_clients_do_not_hold_up_the_others(server: ServerProcess) -> None:
    """A hundred of them, and a request between is answered; then all of them are gone."""
    slow = []
    for _ in range(100):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(server.socket_path))
        client.sendall(INFER + b"\r\n")
        slow.append(client)
    with Client("m", socket=server.socket_path) as quick:
        result = quick.infer({"x": X})
    wait_until(lambda: dropped(server, "body") == 100, what="all are dropped")
    for each in slow:
        each.close()

    np.testing.assert_array_equal(result["y"], X * 2)


def live(raw: socket.socket) -> bytes:
    """Ask whether the server lives, and read the whole answer: it may come in pieces."""
    raw.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        piece = raw.recv(65536)
        assert piece, answer
        answer += piece
    return answer


def test_a_connection_may_rest_between_requests(server: ServerProcess) -> None:
    """Patience is for what was begun: a client that keeps its connection is not slow."""
    with Client("m", socket=server.socket_path) as client:
        client.infer({"x": X})
        assert trickle(server, INFER, b"").startswith(b"HTTP/1.1 408 ")  # as long as that takes
        client.infer({"x": X})

    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(str(server.socket_path))
        assert live(raw).startswith(b"HTTP/1.1 200 ")
        trickle(server, INFER, b"")
        assert live(raw).startswith(b"HTTP/1.1 200 ")
