"""``Client(slot).infer({name: array}) -> {name: array}``, for applications on the device."""

import asyncio
import socket as socket_module
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stoker_client.errors import DEADLINE, NETWORK, DeadlineError, InferError
from stoker_client.messages import Array, Result, infer_request, parse_head, result_of

DEFAULT_SOCKET: Final = Path("/run/stoker/inference.sock")
_MAX_HEAD_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 256 * 1024
_ATTEMPTS: Final = 2


class _StaleError(Exception):
    """A kept connection was closed by the server before it answered anything."""


class Client:
    """Blocking client over one kept connection. Not for use by several threads at once."""

    def __init__(
        self, slot: str, *, socket: str | Path = DEFAULT_SOCKET, timeout_s: float = 30.0
    ) -> None:
        self.slot = slot
        self._path = str(socket)
        self._timeout_s = timeout_s
        self._connection: socket_module.socket | None = None

    def infer(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Result:
        """Run the model of the slot.

        ``timeout_s`` is a deadline that the server keeps, too.

        Raises:
            InferError: why there is no answer; its subclasses say what to do about it.
        """
        parts = infer_request(self.slot, inputs, outputs, timeout_s)
        for attempt in range(_ATTEMPTS):
            try:
                return self._exchange(parts, timeout_s)
            except _StaleError:
                self.close()
                if attempt + 1 == _ATTEMPTS:
                    raise InferError(NETWORK, "the server closed the connection") from None
            except TimeoutError:
                self.close()
                raise DeadlineError(DEADLINE, "the server did not answer in time") from None
            except OSError as error:
                self.close()
                raise InferError(NETWORK, f"{self._path}: {error}") from None
        raise AssertionError  # the last attempt returns or raises

    def connect(self) -> socket_module.socket:
        """Open a connection that is the caller's to close."""
        connection = socket_module.socket(socket_module.AF_UNIX)
        try:
            connection.settimeout(self._timeout_s)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the connection. The next request opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(self, parts: Sequence[bytes], timeout_s: float | None) -> Result:
        fresh = self._connection is None
        if self._connection is None:
            self._connection = self.connect()
        connection = self._connection
        grace_s = 1.0  # the server's own word about the deadline is better than none
        connection.settimeout(self._timeout_s if timeout_s is None else timeout_s + grace_s)
        try:
            for part in parts:
                connection.sendall(part)
            received = connection.recv(_CHUNK_BYTES)
        except (BrokenPipeError, ConnectionResetError):
            received = b""
        if not received:
            if fresh:
                raise InferError(NETWORK, "the server closed the connection")
            raise _StaleError
        return self._read(connection, bytearray(received))

    def _read(self, connection: socket_module.socket, data: bytearray) -> Result:
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _MAX_HEAD_BYTES:
                raise InferError(NETWORK, "the answer has no end of headers")
            data += _some(connection.recv(_CHUNK_BYTES))
        status, headers = parse_head(bytes(data[:end]))
        missing = int(headers["content-length"]) - (len(data) - end - 4)
        while missing > 0:
            chunk = _some(connection.recv(min(missing, _CHUNK_BYTES)))
            data += chunk
            missing -= len(chunk)
        if headers.get("connection") == "close":
            self.close()
        return result_of(status, headers, bytes(data[end + 4 :]))


class AsyncClient:
    """As :class:`Client`, for asyncio. Requests made at once take a connection each."""

    def __init__(
        self, slot: str, *, socket: str | Path = DEFAULT_SOCKET, timeout_s: float = 30.0
    ) -> None:
        self.slot = slot
        self._path = str(socket)
        self._timeout_s = timeout_s
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def infer(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Result:
        """Run the model of the slot. See :meth:`Client.infer`."""
        parts = infer_request(self.slot, inputs, outputs, timeout_s)
        limit_s = self._timeout_s if timeout_s is None else timeout_s + 1.0
        try:
            async with asyncio.timeout(limit_s):
                while self._idle:
                    with suppress(_StaleError):
                        return await self._exchange(*self._idle.pop(), parts)
                reader, writer = await asyncio.open_unix_connection(self._path)
                return await self._exchange(reader, writer, parts)
        except TimeoutError:
            raise DeadlineError(DEADLINE, "the server did not answer in time") from None
        except _StaleError:
            raise InferError(NETWORK, "the server closed the connection") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise InferError(NETWORK, f"{self._path}: {error}") from None

    async def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parts: Sequence[bytes]
    ) -> Result:
        kept = False
        try:
            writer.writelines(parts)
            head = await _head(reader)
            status, headers = parse_head(head[:-4])
            body = await reader.readexactly(int(headers["content-length"]))
            kept = headers.get("connection") != "close"
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return result_of(status, headers, body)


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise _StaleError from None
        raise
    except ConnectionError:
        raise _StaleError from None


def _some(chunk: bytes) -> bytes:
    if not chunk:
        raise InferError(NETWORK, "the answer ends too early")
    return chunk
