"""The store over HTTP(S): blobs by digest, and documents about jobs.

::

    GET|HEAD|PUT /v1/blobs/DIGEST       checked while they stream in
    GET|POST     /v1/jobs               the last ones; a new one
    GET          /v1/jobs/ID
    GET          /v1/plans/DIGEST       the job that a plan came from
    POST         /v1/jobs/ID/take       by a worker; 204 when there is nothing to build any more
    POST         /v1/jobs/ID/renew      "I am still at it"
    POST         /v1/jobs/ID/outcome
    POST         /v1/jobs/ID/withdraw   by who asked for it; it ends when nobody else did
    POST         /v1/jobs/ID/cancel     it ends, whoever asked for it
    GET|POST     /v1/workers            those that were heard of; a word from one

Whoever has the token may do all of it. What is refused is answered with a ``Refused`` document.
"""

import hashlib
import hmac
import re
import sqlite3
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, NamedTuple

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.documents import (
    MAX_BLOB_BYTES,
    Attempt,
    Blob,
    BuildJob,
    Ending,
    JobList,
    Refused,
    WorkerDescription,
    WorkerList,
)
from stoker_builder.workers.store import JobStore
from stoker_contract.document import MAX_DOCUMENT_BYTES, Document
from stoker_contract.errors import ContractError

_CHUNK_BYTES: Final = 1024 * 1024
_IDLE_S: Final = 60.0
_BLOB: Final = re.compile(r"/v1/blobs/([0-9a-f]{64})")
_PLAN: Final = re.compile(r"/v1/plans/([0-9a-f]{64})")
_JOB: Final = re.compile(r"/v1/jobs/([0-9a-f]{32})(?:/(take|renew|outcome|withdraw|cancel))?")
_COUNT: Final = re.compile(r"[0-9]{1,15}")
_STATUS: Final[Mapping[str, HTTPStatus]] = {
    BuildCode.JOB_STATE: HTTPStatus.CONFLICT,
    BuildCode.BLOB_DAMAGED: HTTPStatus.UNPROCESSABLE_ENTITY,
}


@dataclass(frozen=True, slots=True)
class Desk:
    """What the service answers from.

    Attributes:
        token: what everybody has to show.
        on_change: called when a job may have to be announced.
    """

    store: JobStore
    token: str
    on_change: Callable[[], None]


class Tls(NamedTuple):
    """The service's certificate with its chain, and its key."""

    certificate: Path
    key: Path


def make_service(desk: Desk, host: str, port: int, tls: Tls | None) -> ThreadingHTTPServer:
    """A server that is bound but does not serve yet; port 0 takes a free one.

    Raises:
        OSError: the address is taken, or certificate and key can not be used.
    """

    class Handler(_Handler):
        at = desk

    server = _Server((host, port), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(tls.certificate, tls.key)
        # the handshake is the handler's: a silent client must not stop the others from coming in
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that broke, or never became one; the rest is our mistake."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stoker-builds"
    timeout = _IDLE_S
    at: Desk

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_HEAD(self) -> None:
        self._guarded(self._get)

    def do_PUT(self) -> None:
        self._guarded(self._put)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as in the base class
        """Say nothing: what happens to jobs is in the store."""

    def _guarded(self, answer: Callable[[], None]) -> None:
        """Answer whoever has the token; what goes wrong is an answer, too."""
        shown = self.headers.get("Authorization", "").encode()
        try:
            if not hmac.compare_digest(shown, f"Bearer {self.at.token}".encode()):
                self._refuse(HTTPStatus.UNAUTHORIZED, "this is not the service's token")
                return
            answer()
        except BuildError as error:
            status = _STATUS.get(error.code, HTTPStatus.BAD_REQUEST)
            self._refuse(status, error.detail, code=error.code, hint=error.hint)
        except ContractError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, error.detail)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except sqlite3.Error as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"the jobs can not be kept: {error}")

    def _get(self) -> None:
        if (found := _BLOB.fullmatch(self.path)) is not None:
            self._send_blob(found[1])
        elif (found := _JOB.fullmatch(self.path)) is not None and found[2] is None:
            self._send(self.at.store.view(found[1]))
        elif (found := _PLAN.fullmatch(self.path)) is not None:
            self._send(self.at.store.maker_of(found[1]))
        elif self.path == "/v1/jobs":
            self._send(JobList(jobs=self.at.store.jobs()))
        elif self.path == "/v1/workers":
            self._send(WorkerList(workers=self.at.store.workers()))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _put(self) -> None:
        found = _BLOB.fullmatch(self.path)
        length = self._length(MAX_BLOB_BYTES)
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return
        blob = Blob.parse_object({"digest": found[1], "length": length})
        try:
            self.at.store.blobs.put(blob, self._body(length))
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            said = f"the bytes can not be kept: {error.strerror}"
            hint = "make room where the service has its folder"
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, said, hint=hint)
            return
        self._send(None)

    def _post(self) -> None:
        data = b"".join(self._body(self._length(MAX_DOCUMENT_BYTES)))
        if (found := _JOB.fullmatch(self.path)) is not None and found[2] is not None:
            self._send(self._about_job(found[1], found[2], data))
        elif self.path == "/v1/jobs":
            self._send(self.at.store.submit(BuildJob.parse(data)))
        elif self.path == "/v1/workers":
            self.at.store.hear(WorkerDescription.parse(data))
            self._send(None)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return
        self.at.on_change()

    def _about_job(self, job_id: str, word: str, data: bytes) -> Document | None:
        store = self.at.store
        if word == "take":
            return store.take(job_id, WorkerDescription.parse(data))
        if word == "renew":
            store.renew(job_id, Attempt.parse(data).number)
            return None
        if word == "outcome":
            ending = Ending.parse(data)
            return store.finish(job_id, ending.number, ending.outcome)
        if word == "withdraw":
            return store.withdraw(job_id)
        return store.cancel(job_id)

    def _length(self, at_most: int) -> int:
        text = self.headers.get("Content-Length", "")
        if not _COUNT.fullmatch(text) or int(text) > at_most:
            detail = f"Content-Length is {text[:32]!r}, expected at most {at_most} bytes"
            raise BuildError(BuildCode.BUILD_SERVICE, detail, "send less, and say how much")
        return int(text)

    def _body(self, length: int) -> Iterator[bytes]:
        while length and (chunk := self.rfile.read(min(length, _CHUNK_BYTES))):
            length -= len(chunk)
            yield chunk

    def _send_blob(self, digest: str) -> None:
        path = self.at.store.blobs.path(digest)
        if path is None:
            detail = f"the bytes {digest[:16]}… are not here"
            hint = "ask for the build again: what is missing is sent again"
            self._refuse(HTTPStatus.NOT_FOUND, detail, code=BuildCode.BLOB_DAMAGED, hint=hint)
            return
        sent = hashlib.sha256()
        with path.open("rb") as file:
            self._head(HTTPStatus.OK, path.stat().st_size)
            while self.command == "GET" and (chunk := file.read(_CHUNK_BYTES)):
                sent.update(chunk)
                self.wfile.write(chunk)
        if self.command == "GET" and sent.hexdigest() != digest:
            self.at.store.blobs.drop(digest)  # so that who has the right ones sends them again

    def _send(self, document: Document | None) -> None:
        data = b"" if document is None else document.encode()
        self._head(HTTPStatus.OK if data else HTTPStatus.NO_CONTENT, len(data))
        self.wfile.write(data)

    def _refuse(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        code: str = BuildCode.BUILD_SERVICE,
        hint: str = "",
    ) -> None:
        self.close_connection = True  # what it went on to say is not read
        data = Refused.of(code, detail, hint).encode()
        self._head(status, len(data))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: HTTPStatus, length: int) -> None:
        self.send_response(status)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(length))
            self.send_header("Content-Type", "application/octet-stream")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
