"""``stoker bench`` as a user meets it: files, releases, servers; in turns and at a rate."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support import models
from support.server_process import ServerProcess

QUICK = ("--limit-s", "1")


def stoker(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "stoker_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def server(short_tmp: Path) -> Iterator[ServerProcess]:
    """A real server with one model in the slot ``main``."""
    process = ServerProcess(short_tmp)
    try:
        spec = models.scale(2.0).put(process.store, "m/1")
        process.write_slot("main", spec)
        process.start()
        process.wait_ready("main")
        yield process
    finally:
        process.end()


def test_several_are_measured_in_turns(tiny_onnx: Path) -> None:
    """One file with two runtimes: a line for each, and how they compare."""
    ended = stoker("bench", tiny_onnx, "--runtime", "onnxruntime,openvino", *QUICK, "--json")

    assert ended.returncode == 0, ended.stderr
    first, second = json.loads(ended.stdout)["measured"]
    assert (first["runtime"], second["runtime"]) == ("onnxruntime", "openvino")
    assert first["latency"]["samples"] > 0
    assert second["versus_first"]["ratio"] > 0
    assert "versus_first" not in first


def test_a_rate_shows_waiting(tiny_onnx: Path) -> None:
    """With a rate, latency counts from when a request was due, and the wait has its column."""
    ended = stoker("bench", tiny_onnx, "--rate", "200", "--parallel", "2", *QUICK, "--json")

    assert ended.returncode == 0, ended.stderr
    (one,) = json.loads(ended.stdout)["measured"]
    assert one["at_rate"]["offered_per_s"] == 200
    assert one["at_rate"]["callers"] == 2
    assert one["latency"]["p50_ms"] >= one["at_rate"]["service"]["p50_ms"] * 0.99


def test_a_server_is_measured_over_its_unix_socket(server: ServerProcess) -> None:
    """A live slot: the inputs are made up from what it says of itself."""
    ended = stoker("bench", server.socket_path, "--model", "main", *QUICK, "--json")

    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["measured"][0]["served"]
    # its own work can not be told from a neighbour's
    assert not result["quotable"]


def test_a_server_is_measured_over_tcp_at_a_rate(server: ServerProcess) -> None:
    """Any server that speaks the protocol, by its address."""
    host, port = server.tcp
    where = f"http://{host}:{port}"
    ended = stoker("bench", where, "--model", "main", "--rate", "100", *QUICK)

    assert ended.returncode == 0, ended.stderr
    assert "of 100" in ended.stdout
    assert "measured from outside" in ended.stdout


def test_given_inputs_are_used(tiny_onnx: Path, tmp_path: Path) -> None:
    """Inputs of one's own, and a clear word when the model does not take them."""
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    np.savez(good, x=np.zeros((1, 3, 16, 16), np.float32))
    np.savez(bad, x=np.zeros((1, 3, 17, 17), np.float32))

    assert stoker("bench", tiny_onnx, "--inputs", good, *QUICK).returncode == 0
    refused = stoker("bench", tiny_onnx, "--inputs", bad, *QUICK)
    assert refused.returncode == 1
    assert "DATA_MISMATCH" in refused.stderr


def test_a_profile_is_a_trace_file(tiny_onnx: Path, tmp_path: Path) -> None:
    """``--profile`` leaves a file of trace events beside the figures."""
    trace = tmp_path / "trace.json"
    ended = stoker("bench", tiny_onnx, *QUICK, "--profile", trace)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(trace.read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nowhere.onnx",), "MODEL_MISSING"),
        (("http://127.0.0.1:1", "--model", "m"), "MEASURE"),
        (("http://127.0.0.1:1",), "BAD_REQUEST"),
        (("http://nowhere:port", "--model", "m"), "BAD_REQUEST"),
        ((__file__,), "MODEL_FORMAT"),
        (("SELF", "--runtime", "magic"), "BAD_REQUEST"),
        (("SELF", "--inputs", __file__), "DATA_MISMATCH"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[-20:],
)
def test_a_mistake_is_a_code_and_a_hint(
    tiny_onnx: Path, arguments: tuple[str, ...], code: str
) -> None:
    """Whatever is wrong, no traceback."""
    named = [str(tiny_onnx) if word == "SELF" else word for word in arguments]
    ended = stoker("bench", *named, *QUICK)

    assert ended.returncode == 1
    assert f"error {code}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_callers_without_a_rate_make_no_sense(tiny_onnx: Path) -> None:
    """More callers than one are for a rate: else each answer is waited for."""
    ended = stoker("bench", tiny_onnx, "--parallel", "4")

    assert ended.returncode == 1
    assert "--rate" in ended.stderr
