"""What this package needs of ASGI: a body read into one buffer, and an answer in two messages."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from stoker_contract.codes import ReasonCode
from stoker_server.errors import ServeError

Headers = list[tuple[bytes, bytes]]

STATUS: Final = {
    ReasonCode.BAD_REQUEST: 400,
    ReasonCode.UNKNOWN_MODEL: 404,
    ReasonCode.REQUEST_TIMEOUT: 408,
    ReasonCode.TOO_LARGE: 413,
    ReasonCode.QUEUE_FULL: 429,
    ReasonCode.NO_ENGINE: 503,
    ReasonCode.ENGINE_CRASHED: 503,
    ReasonCode.MEMORY: 503,
    ReasonCode.DEADLINE: 504,
    ReasonCode.RUN_TIMEOUT: 504,
}
_CLOSING: Final = frozenset({408, 413})
_TRY_AGAIN: Final = frozenset({429, 503})


def header(scope: Scope, name: bytes) -> bytes | None:
    """A header of a request; names are lower-case in ASGI."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def count_header(scope: Scope, name: bytes) -> int | None:
    """A header that is a number of bytes.

    Raises:
        ServeError: ``BAD_REQUEST``.
    """
    value = header(scope, name)
    if value is None:
        return None
    longest = 15
    if not value.isdigit() or len(value) > longest:
        detail = f"{name.decode()} must be a number of bytes"
        raise ServeError(ReasonCode.BAD_REQUEST, detail)
    return int(value)


async def read_body(
    scope: Scope, receive: Receive, limit: int, within_s: float
) -> bytes | bytearray:
    """The whole body. What is announced as too large is refused before a byte is stored.

    Raises:
        ServeError: ``TOO_LARGE``, ``REQUEST_TIMEOUT`` when it was not complete after
            ``within_s``, or ``BAD_REQUEST`` when the client went away.
    """
    announced = count_header(scope, b"content-length")
    if announced is not None and announced > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(within_s):
            message = await receive()
            first: bytes = message.get("body", b"")
            if not message.get("more_body") and message["type"] != "http.disconnect":
                return first
            return await _read_rest(bytearray(first), receive, limit)
    except TimeoutError:
        detail = f"the body was not complete after {within_s:g} s"
        raise ServeError(ReasonCode.REQUEST_TIMEOUT, detail) from None


async def _read_rest(body: bytearray, receive: Receive, limit: int) -> bytearray:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServeError(ReasonCode.BAD_REQUEST, "the client went away")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return body


async def answer(send: Send, status: int, headers: Headers, parts: Sequence[bytes]) -> None:
    """Send a whole answer."""
    length = sum(map(len, parts))
    headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(parts)})


def error_parts(error: ServeError) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and JSON object of an error, as the protocol has them."""
    status = STATUS.get(error.code, 500)
    headers = {"stoker-code": str(error.code)}
    if status in _TRY_AGAIN:
        headers["retry-after"] = "1"
    if status in _CLOSING:
        headers["connection"] = "close"  # what is still coming is not worth reading
    return status, headers, {"error": f"{error.detail} [{error.code}]"}


def _too_large(limit: int) -> ServeError:
    return ServeError(ReasonCode.TOO_LARGE, f"the request is larger than {limit} bytes")
