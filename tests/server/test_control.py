"""The control socket: one line in, one line out, whatever the line is."""

import contextlib

import pytest

from stoker_contract import control
from stoker_contract.codes import ReasonCode
from stoker_contract.control import Op
from support import models
from support.server_process import ServerProcess


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\n", ReasonCode.MALFORMED),
        (b"hello\n", ReasonCode.MALFORMED),
        (b'{"id":1}\n', ReasonCode.MALFORMED),
        (b'{"id":-1,"op":"status"}\n', ReasonCode.MALFORMED),
        (b'{"id":1,"op":"reboot"}\n', ReasonCode.UNSUPPORTED),
        (b'{"id":1,"op":"load","args":{"slot":"../x"}}\n', ReasonCode.MALFORMED),
        (b'{"id":1,"op":"swap","args":{}}\n', ReasonCode.MALFORMED),
        (b"[" * 1000 + b"\n", ReasonCode.MALFORMED),
    ],
)
def test_a_line_that_is_no_request_is_answered_by_code(
    server: ServerProcess, line: bytes, code: ReasonCode
) -> None:
    """Nothing an agent can write ends the connection, or the server."""
    agent = server.start().control()
    agent.send(line)

    assert control.Response.parse(agent.read_line()).code is code
    assert agent.ask(Op.STATUS)["pid"] == server.pid


def test_a_line_that_never_ends_closes_that_connection_only(server: ServerProcess) -> None:
    """The server does not store an endless line."""
    agent = server.start().control()
    agent.send(b"x" * (1024 * 1024 + 70_000))

    with contextlib.suppress(ConnectionResetError):
        assert agent.read_line() == b""
    assert server.control().ask(Op.STATUS)["pid"] == server.pid


def test_telemetry_counts_every_request(server: ServerProcess) -> None:
    """Queue, compute and total of each answered request are in the histograms."""
    server.write_slot("m", models.scale(2).put(server.store, "m/1.0"))
    server.start().wait_ready("m")
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    bad: dict[str, object] = {"inputs": []}
    for request in (body, body, bad):
        server.request("POST", "/v2/models/m/infer", request)
    snapshot = control.TelemetrySnapshot.parse_object(server.control().ask(Op.TELEMETRY))

    (window,) = snapshot.engines
    assert (window.slot, window.digest, window.release) == ("m", models.scale(2).digest, "m/1.0")
    assert (window.requests, window.errors, window.refused) == (2, 0, 1)
    assert window.queue.count == window.compute.count == window.total.count == 2
    assert window.total.sum_ns >= window.compute.sum_ns > 0


def test_the_server_has_a_new_name_after_every_start(server: ServerProcess) -> None:
    """Counts start again with the process, and the agent can tell."""
    names = []
    for _ in range(2):
        names.append(server.start().control().ask(Op.STATUS)["server_id"])
        server.stop()

    assert names[0] != names[1]
