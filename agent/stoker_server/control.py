"""The control socket: one JSON object a line, answered by ``id``. Only the agent may connect."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from stoker_contract import control
from stoker_contract.codes import ReasonCode
from stoker_contract.control import Op
from stoker_contract.document import Document
from stoker_contract.errors import ContractError
from stoker_server.dataplane import DataPlane
from stoker_server.errors import ServeError
from stoker_server.operations import Operations

log = structlog.get_logger()

MAX_LINE_BYTES: Final = 1024 * 1024

_Run = Callable[[object], Awaitable[Document | None]]


class ControlSocket:
    """Answers the agent. Every operation runs as a task of its own."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        does = Operations(plane)
        self._operations: dict[Op, _Run] = {
            Op.STATUS: self._status,
            Op.TELEMETRY: self._telemetry,
            Op.LOAD: lambda args: does.load(control.Load.parse_object(args)),
            Op.WARM: lambda args: does.warm(control.SlotTimeout.parse_object(args)),
            Op.GOLDEN: lambda args: does.golden(control.RunGolden.parse_object(args)),
            Op.SWAP: lambda args: does.swap(control.SlotOnly.parse_object(args)),
            Op.OBSERVE: lambda args: does.observe(control.SlotOnly.parse_object(args)),
            Op.RESTORE: lambda args: does.restore(control.SlotOnly.parse_object(args)),
            Op.RETIRE: lambda args: does.retire(control.Retire.parse_object(args)),
            Op.ABORT: lambda args: does.abort(control.SlotOnly.parse_object(args)),
        }

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Answer on a listening Unix socket."""
        return await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_LINE_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                while line := await reader.readline():
                    tasks.create_task(self._respond(line, writer), name="control.operation")
        except* (ValueError, ConnectionError) as errors:
            # A line that is too long, or an agent that went away before its answer.
            log.warning("control.closed", why=str(errors.exceptions[0]))
        finally:
            writer.close()

    async def _respond(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        response = await self.answer(line)
        writer.write(response.encode() + b"\n")
        await writer.drain()

    async def answer(self, line: bytes) -> control.Response:
        """Do what one line asks for. Never raises: what went wrong is in the answer."""
        try:
            request = control.Request.parse(line, max_bytes=MAX_LINE_BYTES)
        except ContractError as error:
            return control.Response(id=0, code=error.code, detail=error.detail)
        try:
            result = await self._operations[request.op](request.args)
        except (ServeError, ContractError) as error:
            log.warning("control.refused", op=str(request.op), code=str(error.code))
            return control.Response(id=request.id, code=error.code, detail=error.detail)
        except Exception:
            # The agent must always get an answer; a bug here is reported, not a closed socket.
            log.exception("control.bug", op=str(request.op))
            detail = f"{request.op} failed inside the server; see its log"
            return control.Response(id=request.id, code=ReasonCode.INTERNAL, detail=detail)
        return control.Response(id=request.id, result=result.to_object() if result else {})

    async def _status(self, _: object) -> Document:
        return self._plane.status()

    async def _telemetry(self, _: object) -> Document:
        return self._plane.telemetry()
