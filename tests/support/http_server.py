"""A file server over real HTTP that lies, cuts and stalls on request."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHUNK_BYTES = 16 * 1024


@dataclass
class Misbehaviour:
    """What the server does wrong. The default is an honest server with Range.

    Attributes:
        only: misbehave only for paths that end so.
        cut_after: close the connection after this many body bytes, once for each entry.
        status: answer this and no body.
        ignore_range: answer 200 with the whole file to a range request.
        content_range: send this header instead of the right one.
        endless: never stop sending.
        stall_after: after this many body bytes, send no more until :meth:`Repository.resume`.
    """

    only: str = ""
    cut_after: list[int] = field(default_factory=list)
    status: int | None = None
    location: str | None = None
    ignore_range: bool = False
    refuse_range: bool = False
    content_range: str | None = None
    content_encoding: str | None = None
    content_length: int | None = None
    endless: bool = False
    stall_after: int | None = None
    replace_with: bytes | None = None


@dataclass
class Repository:
    """A running server over a folder."""

    root: Path
    url: str
    bad: Misbehaviour = field(default_factory=Misbehaviour)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent_bytes: int = 0
    resumed: threading.Event = field(default_factory=threading.Event)

    def resume(self) -> None:
        """Let a stalled answer go on."""
        self.resumed.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"
    bad: Misbehaviour

    def log_message(self, *_args: object) -> None:
        """Tests look at ``Repository.requests``."""

    def do_GET(self) -> None:
        repository = self.server.repository
        wanted = self.headers.get("Range")
        path = unquote(urlsplit(self.path).path).lstrip("/")
        bad = self.bad = repository.bad if path.endswith(repository.bad.only) else Misbehaviour()
        repository.requests.append((path, wanted))
        file = repository.root / path
        if bad.status is not None or not file.is_file():
            self._answer_without_body(bad.status or HTTPStatus.NOT_FOUND, bad.location)
            return
        data = file.read_bytes() if bad.replace_with is None else bad.replace_with
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if wanted and bad.refuse_range:
            self._answer_without_body(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, None)
            return
        partial = bool(wanted) and not bad.ignore_range
        body = data[start:] if partial else data
        self._headers(len(body), f"bytes {start}-{len(data) - 1}/{len(data)}" if partial else None)
        with suppress(OSError):
            self._body(body)
        self.close_connection = True

    def _answer_without_body(self, status: int, location: str | None) -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _headers(self, length: int, content_range: str | None) -> None:
        bad = self.bad
        self.send_response(HTTPStatus.PARTIAL_CONTENT if content_range else HTTPStatus.OK)
        if content_range:
            self.send_header("Content-Range", bad.content_range or content_range)
        if bad.content_encoding:
            self.send_header("Content-Encoding", bad.content_encoding)
        if not bad.endless:
            self.send_header("Content-Length", str(bad.content_length or length))
        self.send_header("Connection", "close")
        self.end_headers()

    def _body(self, body: bytes) -> None:
        repository, bad = self.server.repository, self.bad
        end = bad.cut_after.pop(0) if bad.cut_after else len(body)
        sent = 0
        while sent < min(end, len(body)):
            if bad.stall_after is not None and sent >= bad.stall_after:
                repository.resumed.wait(30)
                bad.stall_after = None
            stop = min(sent + CHUNK_BYTES, end, len(body))
            self.wfile.write(body[sent:stop])
            repository.sent_bytes += stop - sent
            sent = stop
        while bad.endless and not repository.resumed.is_set():
            self.wfile.write(b"x" * CHUNK_BYTES)
            repository.sent_bytes += CHUNK_BYTES


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    repository: Repository

    def handle_error(self, *_args: object) -> None:
        """A client that hangs up is what these tests are about."""


@contextmanager
def serving(root: Path) -> Iterator[Repository]:
    """Serve a folder on a free loopback port until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.repository = Repository(root, f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.repository
    finally:
        server.repository.resume()
        server.shutdown()
        thread.join()
        server.server_close()
