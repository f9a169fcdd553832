"""The service from the other side: what workers and builds say to it."""

import http.client
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.blobs import describe, write_checked
from stoker_builder.workers.documents import (
    MAX_LIST_BYTES,
    Attempt,
    Blob,
    BuildJob,
    Ending,
    Grant,
    JobList,
    JobOutcome,
    JobView,
    Refused,
    WorkerDescription,
    WorkerList,
)
from stoker_contract.document import Document
from stoker_contract.errors import ContractError

_Any = TypeVar("_Any", bound=Document)

_CHUNK_BYTES: Final = 1024 * 1024
_TIMEOUT: Final = urllib3.Timeout(connect=10.0, read=60.0)
# what is lost on the way is sent again where that does no harm
_RETRIES: Final = Retry(
    total=None, connect=3, read=2, redirect=0, status=0, other=0, backoff_factor=0.2
)
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_HINT: Final = "is `stoker builds serve` running there, and is this its address and its token?"


class ServiceClient:
    """A build service.

    Args:
        url: ``https://host:port``; plain HTTP only on this machine, since the token is sent.
        token: what the service wants to see.
        ca: whom to trust, a PEM file; None for those that the system trusts.

    Raises:
        BuildError: ``BUILD_SERVICE``, the URL is none.
    """

    def __init__(self, url: str, token: str, ca: Path | None = None) -> None:
        _check_url(url)
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {token}"},
            ca_certs=None if ca is None else str(ca),
            timeout=_TIMEOUT,
            retries=_RETRIES,
            maxsize=2,  # a lease is renewed while something is sent
        )

    def forget_connections(self) -> None:
        """Make new ones: after a fork, those that are open are the other process's too."""
        self._pool.clear()

    def submit(self, job: BuildJob) -> JobView:
        """Ask for a plan. The bytes that the job names have to be there."""
        return _read(JobView, self._post("jobs", job))

    def view(self, job_id: str) -> JobView:
        """How a job stands."""
        return _read(JobView, self._ask("GET", f"jobs/{job_id}"))

    def maker_of(self, plan: str) -> JobView:
        """The job that a plan came from, by the plan's digest."""
        return _read(JobView, self._ask("GET", f"plans/{plan}"))

    def withdraw(self, job_id: str) -> JobView:
        """Take back that it was asked for; it ends when nobody else asked for it, too."""
        return _read(JobView, self._ask("POST", f"jobs/{job_id}/withdraw"))

    def cancel(self, job_id: str) -> JobView:
        """End a job, whoever asked for it."""
        data = self._ask("POST", f"jobs/{job_id}/cancel")
        return _read(JobView, data)

    def jobs(self) -> JobList:
        """The last jobs."""
        return _read(JobList, self._ask("GET", "jobs"))

    def workers(self) -> WorkerList:
        """Workers that were heard of."""
        return _read(WorkerList, self._ask("GET", "workers"))

    def hear(self, worker: WorkerDescription) -> None:
        """Say that a worker is there."""
        self._post("workers", worker)

    def take(self, job_id: str, worker: WorkerDescription) -> Grant | None:
        """Take a job; None when there is nothing left to do about it."""
        data = self._post(f"jobs/{job_id}/take", worker)
        return _read(Grant, data) if data else None

    def renew(self, grant: Grant) -> None:
        """Say that the job is still worked at."""
        self._post(f"jobs/{grant.id}/renew", Attempt(number=grant.number))

    def finish(self, grant: Grant, outcome: JobOutcome) -> JobView:
        """Say how it ended. The bytes that the outcome names have to be there."""
        ending = Ending(number=grant.number, outcome=outcome)
        data = self._post(f"jobs/{grant.id}/outcome", ending)
        return _read(JobView, data)

    def put(self, path: Path) -> Blob:
        """Send a file, unless it is there."""
        blob = describe(path)
        status = self._status("HEAD", f"blobs/{blob.digest}")
        if status not in {http.client.OK, http.client.NOT_FOUND}:
            no_words = b""
            raise _refusal(no_words, status)
        if status == http.client.NOT_FOUND:
            with path.open("rb") as file:
                headers = {"Content-Length": str(blob.length)}
                self._ask("PUT", f"blobs/{blob.digest}", body=file, headers=headers)
        return blob

    def get(self, blob: Blob, path: Path) -> None:
        """Fetch bytes, and check that they are those that were meant.

        Raises:
            BuildError: ``BLOB_DAMAGED``, and nothing is at ``path``; ``BUILD_SERVICE``.
        """
        try:
            answer = self._pool.request(
                "GET", self._at(f"blobs/{blob.digest}"), preload_content=False
            )
            try:
                if answer.status != http.client.OK:
                    raise _refusal(answer.read(MAX_LIST_BYTES), answer.status)
                write_checked(path, blob, answer.stream(_CHUNK_BYTES))
            finally:
                answer.close()
        except HTTPError as error:
            raise self._unreachable(error) from None

    def _post(self, path: str, document: Document) -> bytes:
        return self._ask("POST", path, body=document.encode())

    def _ask(
        self, method: str, path: str, *, body: object = None, headers: dict[str, str] | None = None
    ) -> bytes:
        """Ask, and return the answer. All that can go wrong is a ``BuildError``."""
        try:
            answer = self._pool.request(
                method,
                self._at(path),
                body=body,  # type: ignore[arg-type]  # a file is fine
                headers={**self._pool.headers, **(headers or {})},
                preload_content=False,
            )
            data = answer.read(MAX_LIST_BYTES)
            answer.release_conn()
        except HTTPError as error:
            raise self._unreachable(error) from None
        if answer.status not in {http.client.OK, http.client.NO_CONTENT}:
            raise _refusal(data, answer.status)
        return data

    def _status(self, method: str, path: str) -> int:
        try:
            return self._pool.request(method, self._at(path)).status
        except HTTPError as error:
            raise self._unreachable(error) from None

    def _at(self, path: str) -> str:
        return f"{self._url}/v1/{path}"

    def _unreachable(self, error: HTTPError) -> BuildError:
        return _unusable(f"{self._url} can not be reached: {error}"[:600], _HINT)


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        BuildError: ``BUILD_SERVICE``.
    """
    hint = "the file has one line: the token that `stoker builds serve` was started with"
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        detail = f"the token can not be read: {error}"
        raise BuildError(BuildCode.BUILD_SERVICE, detail, hint) from None
    if not token or not token.isascii() or not token.isprintable():
        raise BuildError(BuildCode.BUILD_SERVICE, f"{path} has no token in it", hint)
    return token


def _check_url(url: str) -> None:
    parts = urlsplit("")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        detail = f"{url!r} is no URL of a build service"
        raise _unusable(detail, "write https://host:port")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        detail = f"{url} would show the token to everybody on the way"
        raise _unusable(detail, "serve it with --certificate and --key, and write https://")


def _read(kind: type[_Any], data: bytes) -> _Any:
    try:
        return kind.parse(data, max_bytes=MAX_LIST_BYTES)
    except ContractError as error:
        detail = f"the build service answers with something else: {error.detail}"
        raise _unusable(detail, _HINT) from None


def _unusable(detail: str, hint: str) -> BuildError:
    return BuildError(BuildCode.BUILD_SERVICE, detail, hint)


def _refusal(data: bytes, status: int) -> BuildError:
    try:
        said = Refused.parse(data)
        code = BuildCode(said.code)
    except (ContractError, ValueError):
        return _unusable(f"the build service answers with status {status}", _HINT)
    return BuildError(code, said.detail, said.hint or _HINT)
