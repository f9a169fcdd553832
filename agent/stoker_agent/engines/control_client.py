"""Asks the server over its control socket: one JSON object a line, answered by ``id``."""

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from stoker_agent.errors import ControlError
from stoker_contract.codes import ReasonCode
from stoker_contract.control import (
    GoldenResult,
    Load,
    Loaded,
    Observed,
    Op,
    Request,
    Response,
    Retire,
    Retired,
    RunGolden,
    ServerStatus,
    SlotOnly,
    SlotTimeout,
    Swapped,
    TelemetrySnapshot,
    Warmed,
)
from stoker_contract.document import Document
from stoker_contract.errors import ContractError

MAX_LINE_BYTES: Final = 1024**2
CONNECT_S: Final = 5.0
MARGIN_S: Final = 10.0
QUICK_S: Final = 15.0

log: Final = structlog.get_logger("stoker.control_client")
Answer = TypeVar("Answer", bound=Document)


class ControlClient:
    """One connection, opened when it is needed and again after it broke."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Response]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connection; a later call opens it again."""
        task, self._reader_task = self._reader_task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def status(self) -> ServerStatus:
        """What is loaded."""
        return await self._ask(Op.STATUS, None, ServerStatus, QUICK_S)

    async def load(self, args: Load) -> Loaded:
        """Start a candidate beside the active engine."""
        return await self._ask(Op.LOAD, args, Loaded, args.timeout_s + MARGIN_S)

    async def warm(self, args: SlotTimeout) -> Warmed:
        """Run the candidate until its latency settles."""
        return await self._ask(Op.WARM, args, Warmed, args.timeout_s + MARGIN_S)

    async def golden(self, args: RunGolden) -> GoldenResult:
        """Compare the candidate with its golden set, and its latency with the active engine."""
        return await self._ask(Op.GOLDEN, args, GoldenResult, args.timeout_s + MARGIN_S)

    async def swap(self, slot: str) -> Swapped:
        """Route new requests to the candidate; the old engine stays warm."""
        return await self._ask(Op.SWAP, SlotOnly(slot=slot), Swapped, QUICK_S)

    async def observe(self, slot: str) -> Observed:
        """Live traffic since the swap."""
        return await self._ask(Op.OBSERVE, SlotOnly(slot=slot), Observed, QUICK_S)

    async def restore(self, slot: str) -> Swapped:
        """Route requests to the old engine again and close the candidate."""
        return await self._ask(Op.RESTORE, SlotOnly(slot=slot), Swapped, QUICK_S)

    async def retire(self, args: Retire) -> Retired:
        """Drain and close the old engine."""
        return await self._ask(Op.RETIRE, args, Retired, args.drain_timeout_s + MARGIN_S)

    async def abort(self, slot: str) -> None:
        """Close the candidate, if there is one."""
        await self._call(Op.ABORT, SlotOnly(slot=slot), QUICK_S)

    async def telemetry(self) -> TelemetrySnapshot:
        """Cumulative counts since the server started."""
        return await self._ask(Op.TELEMETRY, None, TelemetrySnapshot, QUICK_S)

    async def _ask(
        self, op: Op, args: Document | None, answer: type[Answer], timeout_s: float
    ) -> Answer:
        result = await self._call(op, args, timeout_s)
        try:
            return answer.parse_object(result)
        except ContractError as error:
            detail = f"{op}: the answer is not understood: {error.detail}; update the server"
            raise ControlError(ReasonCode.UNSUPPORTED, detail) from error

    async def _call(self, op: Op, args: Document | None, timeout_s: float) -> dict[str, Any]:
        number = next(self._ids)
        request = Request(id=number, op=op, args=args.to_object() if args else {})
        writer = await self._connect()
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(request.encode() + b"\n")
                await writer.drain()
                response = await answer
        except TimeoutError:
            detail = f"{op}: no answer within {timeout_s:g} s"
            raise ControlError(ReasonCode.SERVER_UNAVAILABLE, detail) from None
        except OSError as error:
            raise ControlError(ReasonCode.SERVER_UNAVAILABLE, f"{op}: {error}") from error
        finally:
            self._waiting.pop(number, None)
        if response.code is not None:
            raise ControlError(response.code, response.detail or f"{op} failed")
        return response.result or {}

    async def _connect(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is not None and not self._writer.is_closing():
                return self._writer
            await self.aclose()
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_unix_connection(
                        str(self._path), limit=MAX_LINE_BYTES
                    )
            except (OSError, TimeoutError) as error:
                detail = f"{self._path}: {error!r}; is stoker-server running?"
                raise ControlError(ReasonCode.SERVER_UNAVAILABLE, detail) from None
            self._writer = writer
            self._reader_task = asyncio.create_task(
                self._read(reader, writer), name="engines.control_client"
            )
            return writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reason = "the server closed the connection"
        try:
            while line := await reader.readline():
                self._deliver(Response.parse(line.strip(), max_bytes=MAX_LINE_BYTES))
        except (OSError, ValueError) as error:
            # ValueError: a line over the limit, or one that is not the contract's.
            reason = str(error)
        finally:
            writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ControlError(ReasonCode.SERVER_UNAVAILABLE, reason))

    def _deliver(self, response: Response) -> None:
        answer = self._waiting.get(response.id)
        if answer is not None and not answer.done():
            answer.set_result(response)
        else:
            log.debug("control.late_answer", id=response.id)
