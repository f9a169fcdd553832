"""The Open Inference Protocol, as an unmodified client and a careless one use it."""

import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from support import models
from support.server_process import ServerProcess

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
INFER = "/v2/models/scale/infer"


@pytest.fixture(scope="module")
def served() -> Iterator[ServerProcess]:
    """A server with two slots, shared by the tests of this file."""
    root = Path(tempfile.mkdtemp(prefix="stk"))
    server = ServerProcess(root)
    server.write_slot("scale", models.scale(2).put(server.store, "scale/1.0"))
    server.write_slot("rows", models.dynamic().put(server.store, "rows/3.1"))
    with server:
        server.wait_ready("scale")
        server.wait_ready("rows")
        yield server
    shutil.rmtree(root)


@pytest.fixture
def client(served: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    """An unmodified client of another project."""
    host, port = served.tcp
    with triton.InferenceServerClient(f"{host}:{port}") as found:
        yield found


def rows_input(*, binary: bool) -> triton.InferInput:
    """The input of the ``rows`` model."""
    tensor = triton.InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    return tensor


def scale_body(**changes: object) -> dict[str, Any]:
    """A request for the ``scale`` model, with one input changed."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    return {"inputs": [{**tensor, **changes}]}


def test_an_unmodified_client_finds_server_and_models_ready(
    client: triton.InferenceServerClient,
) -> None:
    """Health and metadata answer as tritonclient expects."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scale")
    assert client.is_model_ready("scale", "1.0")
    assert not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("rows")
    assert metadata["versions"] == ["3.1"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["y", "total"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tensors_travel_as_bytes_or_as_json(
    client: triton.InferenceServerClient, *, binary_in: bool, binary_out: bool
) -> None:
    """Either form of either direction gives the same answer."""
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("total", "y")]
    result = client.infer("rows", [rows_input(binary=binary_in)], outputs=wanted, request_id="7")

    np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)
    np.testing.assert_array_equal(result.as_numpy("total"), ROWS.sum(axis=1))
    response = result.get_response()
    assert response["id"] == "7"
    assert [output["name"] for output in response["outputs"]] == ["total", "y"]
    assert (response["model_name"], response["model_version"]) == ("rows", "3.1")


def test_only_the_outputs_asked_for_are_answered(client: triton.InferenceServerClient) -> None:
    """A subset of the outputs is computed and sent."""
    wanted = [triton.InferRequestedOutput("total")]
    result = client.infer("rows", [rows_input(binary=True)], outputs=wanted)

    assert result.as_numpy("y") is None
    np.testing.assert_array_equal(result.as_numpy("total"), ROWS.sum(axis=1))


def test_without_wishes_all_outputs_come_as_the_client_likes(
    client: triton.InferenceServerClient,
) -> None:
    """No output named: all of them, in bytes, as tritonclient asks by default."""
    result = client.infer("rows", [rows_input(binary=True)])

    np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)
    np.testing.assert_array_equal(result.as_numpy("total"), ROWS.sum(axis=1))


def test_statistics_answer_an_unmodified_client(client: triton.InferenceServerClient) -> None:
    """Counts of the model are where tritonclient looks for them."""
    client.infer("rows", [rows_input(binary=True)])

    stats = client.get_inference_statistics("rows")["model_stats"][0]
    assert stats["inference_count"] > 0
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0


def test_errors_reach_an_unmodified_client_with_their_status(
    client: triton.InferenceServerClient,
) -> None:
    """A refusal is the client's own exception, with text and status."""
    tensor = triton.InferInput("z", [2, 3], "FP32")
    tensor.set_data_from_numpy(ROWS)
    with pytest.raises(InferenceServerException, match="unknown input 'z'") as caught:
        client.infer("rows", [tensor])
    assert caught.value.status() == "400"


@pytest.mark.parametrize("version", ["1.0", models.scale(2).digest, models.scale(2).digest[:12]])
def test_a_version_is_a_release_or_the_beginning_of_a_digest(
    served: ServerProcess, version: str
) -> None:
    """Whoever asks for what is served gets it, and is told whose answer it is."""
    path = f"/v2/models/scale/versions/{version}/infer"
    status, headers, _ = served.request("POST", path, scale_body())

    assert status == 200
    assert headers["stoker-digest"] == models.scale(2).digest
    assert headers["stoker-release"] == "scale/1.0"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/scale/versions/9.9/infer", 404),
        ("/v2/models/nothing/infer", 404),
        ("/v2/models/scale/nothing", 404),
        ("/v2/health/live", 405),
    ],
)
def test_what_is_not_there_is_said_so(served: ServerProcess, path: str, status: int) -> None:
    """Unknown models, versions and paths are the protocol's error objects."""
    found, _, body = served.request("POST", path, scale_body())

    assert found == status
    assert json.loads(body)["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"inputs": 1}',
        b"[" * 100_000,
        {"inputs": []},
        {"inputs": [1]},
        scale_body(name="z"),
        scale_body(name=1),
        scale_body(datatype="FP64"),
        scale_body(datatype=None),
        scale_body(shape=[4]),
        scale_body(shape=[1, 5]),
        scale_body(shape=[1, -4]),
        scale_body(shape=[1, True]),
        scale_body(shape=[1, 2**80]),
        scale_body(shape="1,4"),
        scale_body(data=[1, 2, 3]),
        scale_body(data=[1, 2, 3, "4"]),
        scale_body(data=[1, 2, 3, None]),
        scale_body(data=[[1, 2], [3]]),
        scale_body(data={"0": 1}),
        scale_body(data=None),
        scale_body(parameters={"binary_data_size": 16}),
        scale_body(parameters={"shared_memory_region": "r"}),
        scale_body(parameters=[]),
        {**scale_body(), "outputs": [{"name": "z"}]},
        {**scale_body(), "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
        {**scale_body(), "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        {**scale_body(), "parameters": {"timeout": "soon"}},
        {**scale_body(), "id": 5},
        {"inputs": [*scale_body()["inputs"], *scale_body()["inputs"]]},
    ],
)
def test_a_client_s_mistake_is_never_the_server_s_fault(
    served: ServerProcess, body: object
) -> None:
    """Whatever is wrong with a request, the answer is 400 and says what."""
    status, headers, answer = served.request("POST", INFER, body)

    assert status == 400, answer
    assert headers["stoker-code"] == "BAD_REQUEST"
    assert json.loads(answer)["error"]


@pytest.mark.parametrize("header_length", ["-1", "x", "999999", "9" * 30, "3"])
def test_a_lying_header_length_is_refused(served: ServerProcess, header_length: str) -> None:
    """The length of the JSON part must be a number that fits the body."""
    headers = {"Inference-Header-Content-Length": header_length}
    status, _, _ = served.request("POST", INFER, scale_body(), headers)

    assert status == 400


def test_byte_counts_must_fit_the_shape(served: ServerProcess) -> None:
    """A binary tensor with too few or too many bytes is refused."""
    for size in (15, 17, 0):
        header = json.dumps(scale_binary(size)).encode()
        length = {"Inference-Header-Content-Length": str(len(header))}
        status, _, answer = served.request("POST", INFER, header + bytes(size), length)
        assert status == 400, answer


def test_bytes_that_belong_to_nothing_are_refused(served: ServerProcess) -> None:
    """Bytes after the last tensor mean that somebody counted wrong."""
    header = json.dumps(scale_binary(16)).encode()
    length = {"Inference-Header-Content-Length": str(len(header))}
    status, _, answer = served.request("POST", INFER, header + bytes(20), length)

    assert status == 400, answer


def test_a_huge_length_is_refused_before_a_byte_is_read(served: ServerProcess) -> None:
    """Announcing a terabyte costs the server nothing."""
    status, answer = raw_request(served, "content-length: 999999999999")

    assert status == 413
    assert b"larger than" in answer


def test_a_huge_chunked_body_is_cut(served: ServerProcess) -> None:
    """Without a length, reading ends at the same limit."""
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    status, _ = raw_request(served, "transfer-encoding: chunked", chunk * 64)

    assert status == 413


def test_compressed_requests_are_refused(served: ServerProcess) -> None:
    """A compressed body is not unpacked: it could be a bomb."""
    status, _, answer = served.request("POST", INFER, scale_body(), {"Content-Encoding": "gzip"})

    assert status == 400, answer


def test_a_batch_beyond_the_engine_s_room_is_too_large(served: ServerProcess) -> None:
    """A dimension that the caller chooses is bounded all the same."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2**40, 3], "data": [1]}]}
    status, _, answer = served.request("POST", "/v2/models/rows/infer", body)

    assert status == 413, answer


def test_values_that_json_can_not_say_become_null(served: ServerProcess) -> None:
    """An overflow is null in JSON; the answer stays valid JSON."""
    status, _, answer = served.request("POST", INFER, scale_body(data=[3e38, 1, 1, 1]))

    assert status == 200
    assert json.loads(answer)["outputs"][0]["data"] == [None, 2, 2, 2]


def test_metrics_are_prometheus_text(served: ServerProcess) -> None:
    """Counts and latencies can be scraped."""
    served.request("POST", INFER, scale_body())
    status, headers, answer = served.request("GET", "/metrics")

    text = answer.decode()
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert 'stoker_slot_ready{slot="scale"} 1' in text
    assert 'phase="compute",le="+Inf"' in text


def test_sockets_are_closed_to_strangers(served: ServerProcess) -> None:
    """Inference is for the group, control for the owner."""
    assert served.socket_path.stat().st_mode & 0o777 == 0o660
    assert (served.run_dir / "control.sock").stat().st_mode & 0o777 == 0o600


def scale_binary(size: int) -> dict[str, Any]:
    """The JSON part of a binary request for the ``scale`` model."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
    return {"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}


def raw_request(server: ServerProcess, header: str, body: bytes = b"") -> tuple[int, bytes]:
    """A request written by hand; the answer may come before the body was sent."""
    with socket.create_connection(server.tcp, timeout=30) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(body)
        with contextlib.suppress(ConnectionResetError):
            while received := connection.recv(65536):
                answer += received
    return int(answer.split(b" ")[1]), answer
