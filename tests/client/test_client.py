"""The client for applications on the device: numpy in, numpy out, errors with codes."""

import asyncio
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker_client import (
    AsyncClient,
    BadRequestError,
    Client,
    DeadlineError,
    InferError,
    UnknownModelError,
)
from support import models
from support.server_process import ServerProcess

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
X = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture(scope="module")
def served() -> Iterator[ServerProcess]:
    """A server shared by the tests of this file."""
    root = Path(tempfile.mkdtemp(prefix="stk"))
    server = ServerProcess(root, tcp=False)
    server.write_slot("rows", models.dynamic().put(server.store, "rows/3.1"))
    server.write_slot("slow", models.slow().put(server.store, "slow/1.0"))
    with server:
        server.wait_ready("rows")
        server.wait_ready("slow")
        yield server
    shutil.rmtree(root)


def test_arrays_go_in_and_come_out(served: ServerProcess) -> None:
    """All outputs by name, with the digest and the release that answered."""
    with Client("rows", socket=served.socket_path) as client:
        result = client.infer({"x": ROWS})

    np.testing.assert_array_equal(result["y"], ROWS * 2)
    np.testing.assert_array_equal(result["total"], ROWS.sum(axis=1))
    assert (result.digest, result.release) == (models.dynamic().digest, "rows/3.1")


def test_only_what_is_wanted_comes_out(served: ServerProcess) -> None:
    """Outputs can be chosen."""
    with Client("rows", socket=served.socket_path) as client:
        assert list(client.infer({"x": ROWS}, ["total"])) == ["total"]


def test_arrays_need_not_be_contiguous(served: ServerProcess) -> None:
    """A view with strides is sent as what it shows."""
    with Client("rows", socket=served.socket_path) as client:
        result = client.infer({"x": np.arange(12, dtype=np.float32).reshape(3, 4).T[:, :3]})

    assert result["y"].shape == (4, 3)


def test_large_arrays_pass(served: ServerProcess) -> None:
    """Megabytes in and out, over the same kept connection."""
    large = np.random.default_rng(0).normal(size=(500_000, 3)).astype(np.float32)
    with Client("rows", socket=served.socket_path) as client:
        for _ in range(2):
            np.testing.assert_array_equal(client.infer({"x": large})["y"], large * 2)


def test_mistakes_have_a_type_and_a_code(served: ServerProcess) -> None:
    """What the server refuses is told apart without reading text, and harms no later request."""
    with Client("rows", socket=served.socket_path) as client:
        with pytest.raises(BadRequestError) as caught:
            client.infer({"z": ROWS})
        assert (caught.value.code, caught.value.status) == ("BAD_REQUEST", 400)
        assert list(client.infer({"x": ROWS})) == ["y", "total"]
    with (
        Client("nothing", socket=served.socket_path) as client,
        pytest.raises(UnknownModelError),
    ):
        client.infer({"x": ROWS})


def test_a_type_that_the_protocol_does_not_have_is_refused_here(served: ServerProcess) -> None:
    """Complex numbers do not travel."""
    with Client("rows", socket=served.socket_path) as client, pytest.raises(TypeError):
        client.infer({"x": ROWS.astype(np.complex64)})


def test_a_deadline_holds(served: ServerProcess) -> None:
    """The caller gets its word in time, and the client can be used again."""
    with Client("slow", socket=served.socket_path) as client:
        with pytest.raises(DeadlineError):
            client.infer({"x": models.turns_for(0.2)}, timeout_s=0.01)
        np.testing.assert_array_equal(client.infer({"x": X})["y"], X + 4)


def test_no_server_is_a_network_error(tmp_path: Path) -> None:
    """A socket that is not there is said so."""
    with (
        Client("rows", socket=tmp_path / "none.sock") as client,
        pytest.raises(InferError) as caught,
    ):
        client.infer({"x": ROWS})
    assert caught.value.code == "NETWORK"


def test_a_client_survives_a_restart_of_the_server(short_tmp: Path) -> None:
    """A kept connection that went away is opened again by itself."""
    server = ServerProcess(short_tmp, tcp=False)
    server.write_slot("rows", models.dynamic().put(server.store, "rows/3.1"))
    with server, Client("rows", socket=server.socket_path) as client:
        server.wait_ready("rows")
        client.infer({"x": ROWS})
        server.stop()
        server.start().wait_ready("rows")

        np.testing.assert_array_equal(client.infer({"x": ROWS})["y"], ROWS * 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"x" * 100_000,
    ],
)
def test_a_damaged_answer_is_a_network_error(short_tmp: Path, answer: bytes) -> None:
    """Whatever the other side says, only our own error comes out."""
    path = short_tmp / "fake.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with Client("rows", socket=path) as client, pytest.raises(InferError) as caught:
            client.infer({"x": ROWS})
        assert caught.value.code == "NETWORK"

        async def ask() -> None:
            async with AsyncClient("rows", socket=path) as client:
                await client.infer({"x": ROWS})

        with pytest.raises(InferError) as caught:
            asyncio.run(ask())
        assert caught.value.code == "NETWORK"


def test_asynchronous_requests_run_beside_each_other(served: ServerProcess) -> None:
    """Many at once, each answered with its own; connections are kept and used again."""

    async def ask() -> list[float]:
        async with AsyncClient("rows", socket=served.socket_path) as client:
            inputs = [np.full((1, 3), number, np.float32) for number in range(40)]
            results = await asyncio.gather(*(client.infer({"x": x}) for x in inputs[:20]))
            results += [await client.infer({"x": x}) for x in inputs[20:]]
            return [float(result["y"][0, 0]) for result in results]

    assert asyncio.run(ask()) == [2.0 * number for number in range(40)]


def test_asynchronous_errors_have_the_same_types(served: ServerProcess) -> None:
    """Deadline and mistakes are told apart as in the blocking client."""

    async def ask() -> None:
        async with AsyncClient("slow", socket=served.socket_path) as client:
            with pytest.raises(DeadlineError):
                await client.infer({"x": models.turns_for(0.2)}, timeout_s=0.01)
            with pytest.raises(BadRequestError):
                await client.infer({"z": X})

    asyncio.run(ask())


def test_an_asynchronous_client_survives_a_restart_of_the_server(short_tmp: Path) -> None:
    """Kept connections that went away are left behind."""
    server = ServerProcess(short_tmp, tcp=False)
    server.write_slot("rows", models.dynamic().put(server.store, "rows/3.1"))

    async def ask() -> None:
        async with AsyncClient("rows", socket=server.socket_path) as client:
            await asyncio.gather(*(client.infer({"x": ROWS}) for _ in range(4)))
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(lambda: server.start().wait_ready("rows"))
            result = await client.infer({"x": ROWS})
            np.testing.assert_array_equal(result["y"], ROWS * 2)

    with server:
        server.wait_ready("rows")
        asyncio.run(ask())
