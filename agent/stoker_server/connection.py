"""An HTTP connection that does not wait for ever: whoever begins a request has to send it."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TOO_SLOW: Final = (
    b"HTTP/1.1 408 Request Timeout\r\n"
    b"content-type: application/json\r\n"
    b"content-length: 64\r\n"
    b"connection: close\r\n"
    b"\r\n"
)
_REASON: Final = b'{"error":"the headers did not arrive in time [REQUEST_TIMEOUT]"}'


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which waits without limit for the headers of a request.

    The time runs from the first byte of a request, and from the start of the connection for its
    first one. For a body see :func:`stoker_server.asgi.read_body`; between requests uvicorn
    keeps the time itself.
    """

    def __init__(
        self,
        *,
        headers_within_s: float,
        on_slow: Callable[[], None],
        **rest: Any,  # noqa: ANN401 - uvicorn's own arguments
    ) -> None:
        super().__init__(**rest)
        self._headers_within_s = headers_within_s
        self._on_slow = on_slow
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """They came in time."""
        self._stop_waiting()
        super().on_headers_complete()

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self._headers_within_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.transport.is_closing():
            return
        self._on_slow()
        self.transport.write(_TOO_SLOW + _REASON)
        self.transport.close()
