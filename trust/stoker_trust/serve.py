"""Serving an image repository over HTTP, for development: static files with byte ranges.

Any web server does in production. What devices rely on: ``Range`` (206, 416), a strong ``ETag``,
``If-Range``, and no content encoding.
"""

import re
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_CHUNK_BYTES: Final = 64 * 1024
_IDLE_S: Final = 60.0
PUBLIC: Final = ("metadata", "targets", "director")


def make_server(
    folder: Path, host: str, port: int, *, rate_limit_bytes_per_s: int | None = None
) -> ThreadingHTTPServer:
    """A server that is bound but does not serve yet; port 0 takes a free one."""

    class Handler(_RepositoryHandler):
        root = folder.resolve()
        rate = rate_limit_bytes_per_s

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    return server


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last that a ``Range`` header asks for.

    None where there is no header, or one that this server ignores (several ranges).

    Raises:
        ValueError: the range can not be satisfied.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    if start >= stop:
        msg = f"{header} is outside of {size} bytes"
        raise ValueError(msg)
    return start, stop


class _RepositoryHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stoker-repository"
    timeout = _IDLE_S
    root: Path
    rate: int | None = None

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as in the base class
        """Say nothing: `--verbose` is a web server's business."""

    def _answer(self, *, with_body: bool) -> None:
        path = self._find()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            self._send(file, path, with_body=with_body)

    def _find(self) -> Path | None:
        """The file that is meant, or None where it is not a public file of the repository."""
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        hidden = any(part.startswith(".") or "\0" in part or "\\" in part for part in parts)
        if hidden or parts[0] not in PUBLIC:
            return None
        path = self.root.joinpath(*parts).resolve()
        return path if path.is_relative_to(self.root) and path.is_file() else None

    def _send(self, file: BinaryIO, path: Path, *, with_body: bool) -> None:
        status = path.stat()
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        header = self.headers.get("Range")
        if self.headers.get("If-Range") not in {None, etag}:
            header = None
        try:
            span = parse_range(header, status.st_size)
        except ValueError:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{status.st_size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = span or (0, status.st_size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{status.st_size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if with_body:
            file.seek(start)
            self._copy(file, stop - start)

    def _copy(self, file: BinaryIO, length: int) -> None:
        started, sent = time.monotonic(), 0
        step = min(_CHUNK_BYTES, max(self.rate // 10, 1)) if self.rate else _CHUNK_BYTES
        try:
            while sent < length and (chunk := file.read(min(step, length - sent))):
                self.wfile.write(chunk)
                sent += len(chunk)
                if self.rate:
                    time.sleep(max(started + sent / self.rate - time.monotonic(), 0))
        except ConnectionError:
            self.close_connection = True  # the device went away; it asks again with a range
