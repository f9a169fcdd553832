"""Fetches small signed files over HTTP from a server that is not trusted.

No redirect, no compression, no retry, a limit on every length and one on the whole time: whatever
the server does costs at most one failed attempt. Bytes of models are not fetched here.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface
from urllib3.connection import HTTPConnection, HTTPSConnection

READ_BYTES: Final = 64 * 1024
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long a server may take.

    Attributes:
        read_s: without a byte.
        total_s: for a whole answer, however steadily it trickles.
        budget_s: for all answers that one verification needs.
    """

    connect_s: float = 10.0
    read_s: float = 10.0
    total_s: float = 60.0
    budget_s: float = 180.0


class BoundedFetcher(FetcherInterface):
    """The only way metadata comes onto the device. Raises ``DownloadError`` and nothing else.

    One thread fetches at a time; ``give_up`` may be called by another.
    """

    def __init__(self, limits: FetchLimits = FetchLimits()) -> None:
        self._limits = limits
        self._end_s = 0.0
        self._given_up = True
        self._sock: socket.socket | None = None
        self.begin()

    def begin(self) -> None:
        """A verification begins: it has the whole budget."""
        self._end_s = time.monotonic() + self._limits.budget_s
        self._given_up = False

    def give_up(self) -> None:
        """End what is being fetched, and fetch nothing more before the next ``begin``."""
        self._given_up = True
        self._cut()

    def _fetch(self, url: str) -> Iterator[bytes]:
        # A generator: nothing happens, and nothing is opened, before the first chunk is taken.
        return self._chunks(url)

    def _chunks(self, url: str) -> Iterator[bytes]:
        began_s = time.monotonic()
        deadline_s = min(began_s + self._limits.total_s, self._end_s)
        if deadline_s <= began_s or self._given_up:
            msg = f"{url}: no time is left"
            raise SlowRetrievalError(msg)
        connection, path = self._connection(url)
        timer = threading.Timer(deadline_s - began_s, self._cut)
        timer.daemon = True
        try:
            yield from self._answer(connection, path, url, timer)
        except DownloadError:
            raise
        except Exception as error:  # noqa: BLE001 - a server must not choose how we fail
            if time.monotonic() < deadline_s:
                msg = f"{url}: {str(error) or type(error).__name__}"
                raise DownloadError(msg) from None
        finally:
            timer.cancel()
            self._sock = None
            connection.close()
        if time.monotonic() >= deadline_s or self._given_up:
            msg = f"{url}: not complete within {deadline_s - began_s:.1f} s"
            raise SlowRetrievalError(msg)

    def _answer(
        self, connection: HTTPConnection, path: str, url: str, timer: threading.Timer
    ) -> Iterator[bytes]:
        connection.connect()
        # Kept here: http.client forgets its socket once it knows that the answer is the last one.
        self._sock = connection.sock
        self._sock.settimeout(self._limits.read_s)
        timer.start()
        if self._given_up:
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": "stoker-agent"}
        connection.request("GET", path, headers=headers, preload_content=False)
        response = connection.getresponse()
        self._check(url, response.status, response.headers.get("Content-Encoding"))
        while chunk := response.read1(READ_BYTES, decode_content=False):
            yield chunk

    def _cut(self) -> None:
        """End the connection under the thread that reads it."""
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connection(self, url: str) -> tuple[HTTPConnection, str]:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=self._limits.connect_s), parts.path

    def _check(self, url: str, status: int, encoding: str | None) -> None:
        if status != _OK:
            # A redirect is an answer like any other that is not the file.
            msg = f"{url}: HTTP status {status}"
            raise DownloadHTTPError(msg, status)
        if encoding not in (None, "identity"):
            msg = f"{url}: compressed, although that was not asked for"
            raise DownloadError(msg)
