"""The agent's end of the control socket, against servers that behave and some that do not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import pytest

from stoker_agent.engines.control_client import ControlClient
from stoker_agent.errors import ControlError
from stoker_contract.codes import ReasonCode
from stoker_contract.control import Load, Op, Request, Response, ServerStatus
from support.documents import SPEC
from support.waiting import eventually

Answer = Callable[[Request], Awaitable[bytes | None]]
STATUS = ServerStatus(server_id="s-1", pid=7).to_object()


class Server:
    """Answers lines with whatever ``answer`` returns; None closes the connection."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.connections = 0
        self._answer = answer

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        async with asyncio.TaskGroup() as tasks:
            while line := await reader.readline():
                tasks.create_task(self._reply(Request.parse(line.strip()), writer))
        writer.close()

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        reply = await self._answer(request)
        if reply is None:
            writer.close()
        else:
            writer.write(reply + b"\n")


async def well(request: Request) -> bytes:
    """A status for everything."""
    return Response(id=request.id, result=STATUS).encode()


def run(
    path: Path, answer: Answer, story: Callable[[ControlClient, Server], Awaitable[None]]
) -> None:
    """Run a story with a client and a server."""

    async def whole() -> None:
        async with Server(path, answer) as server:
            client = ControlClient(path)
            try:
                await story(client, server)
            finally:
                await client.aclose()

    asyncio.run(whole())


def test_requests_share_one_connection_and_get_their_own_answers(short_tmp: Path) -> None:
    """A slow operation does not hold up a quick one."""
    slow = asyncio.Event()

    async def answer(request: Request) -> bytes:
        if request.op is Op.LOAD:
            await slow.wait()
            return Response(id=request.id, code=ReasonCode.LOAD_ERROR, detail="bad").encode()
        slow.set()
        return await well(request)

    async def story(client: ControlClient, server: Server) -> None:
        load = asyncio.create_task(client.load(Load(slot="detector", spec=SPEC)))
        await asyncio.sleep(0)
        assert (await client.status()).server_id == "s-1"
        with pytest.raises(ControlError) as caught:
            await load
        assert caught.value.code is ReasonCode.LOAD_ERROR
        assert caught.value.detail == "bad"
        assert server.connections == 1

    run(short_tmp / "s", answer, story)


def test_a_refusal_carries_its_code(short_tmp: Path) -> None:
    """The server's reason is the agent's reason."""

    async def answer(request: Request) -> bytes:
        return Response(id=request.id, code=ReasonCode.NO_ENGINE, detail="no candidate").encode()

    async def story(client: ControlClient, _server: Server) -> None:
        with pytest.raises(ControlError, match="no candidate"):
            await client.swap("detector")

    run(short_tmp / "s", answer, story)


def test_a_broken_connection_fails_what_waits_and_is_opened_again(short_tmp: Path) -> None:
    """SERVER_UNAVAILABLE, and the next call just works."""
    answers = iter([None, STATUS])

    async def answer(request: Request) -> bytes | None:
        result = next(answers)
        return Response(id=request.id, result=result).encode() if result else None

    async def story(client: ControlClient, server: Server) -> None:
        with pytest.raises(ControlError) as caught:
            await client.status()
        assert caught.value.code is ReasonCode.SERVER_UNAVAILABLE
        assert (await client.status()).server_id == "s-1"
        assert server.connections == 2

    run(short_tmp / "s", answer, story)


def test_nobody_there_says_what_to_look_at(short_tmp: Path) -> None:
    """The path and the process are named."""

    async def story() -> None:
        with pytest.raises(ControlError, match="stoker-server") as caught:
            await ControlClient(short_tmp / "none").status()
        assert caught.value.code is ReasonCode.SERVER_UNAVAILABLE

    asyncio.run(story())


@pytest.mark.parametrize(
    "line",
    [b"not json", b"[]", b'{"id": 1}', b'{"id": 1, "result": {"pid": "x"}}', b"x" * 2_000_000],
    ids=["garbage", "list", "empty", "wrong", "endless"],
)
def test_an_answer_nobody_understands_is_an_error_of_ours(short_tmp: Path, line: bytes) -> None:
    """Only ``ControlError`` comes out, whatever comes in."""

    async def answer(_request: Request) -> bytes:
        return line

    async def story(client: ControlClient, _server: Server) -> None:
        with pytest.raises(ControlError):
            await client.status()

    run(short_tmp / "s", answer, story)


def test_a_call_that_was_given_up_does_not_confuse_the_next(short_tmp: Path) -> None:
    """Its late answer is dropped."""
    held = asyncio.Event()

    async def answer(request: Request) -> bytes:
        if request.op is Op.OBSERVE:
            await held.wait()
        return await well(request)

    async def story(client: ControlClient, server: Server) -> None:
        given_up = asyncio.create_task(client.observe("detector"))
        await eventually(lambda: server.requests, "it was asked for")
        given_up.cancel()
        held.set()
        assert (await client.status()).server_id == "s-1"
        assert (await client.status()).server_id == "s-1"

    run(short_tmp / "s", answer, story)
