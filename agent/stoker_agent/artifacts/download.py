"""Fetches signed files over HTTP: resumable, hashed while streaming, bounded in everything.

The server is not trusted. The signed length is a hard limit, the signed digest decides, and
whatever the server says in its headers can at most make the download fail.
"""

import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
import urllib3
from urllib3.exceptions import HTTPError

from stoker_agent.errors import ArtifactError
from stoker_agent.state.store import BlobStore
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import FileRef

READ_BYTES: Final = 64 * 1024
SYNC_EVERY_BYTES: Final = 8 * 1024**2
DISK_MARGIN: Final = 1.05
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416

log: Final = structlog.get_logger("stoker.download")


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """What a download may cost.

    Attributes:
        idle_attempts: attempts in a row that brought no byte before it gives up.
        reserve_bytes: left free on the disk whatever happens.
    """

    connect_s: float = 10.0
    read_s: float = 10.0
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 60.0
    idle_attempts: int = 8
    reserve_bytes: int = 64 * 1024**2


@dataclass(slots=True)
class Transfer:
    """One call of :meth:`Downloader.fetch`: its limits, and how far it got.

    Attributes:
        stop: set by another thread to end it early.
        deadline_s: on the monotonic clock.
        mismatches: how often a finished file was not the signed one.
    """

    stop: threading.Event
    deadline_s: float
    max_bytes_per_s: int | None = None
    received_bytes: int = 0
    started_s: float = field(default_factory=time.monotonic)
    mismatches: int = 0

    def check(self) -> None:
        """Raise when it has to end now."""
        if self.stop.is_set():
            raise ArtifactError(ReasonCode.NETWORK, "the download was stopped")
        if time.monotonic() > self.deadline_s:
            raise ArtifactError(ReasonCode.PHASE_DEADLINE, "the download took too long")

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the deadline, and not when it is stopped."""
        self.stop.wait(max(min(seconds, self.deadline_s - time.monotonic() + 0.01), 0))
        self.check()

    def account(self, count: int) -> None:
        """Count received bytes and hold the rate."""
        self.received_bytes += count
        self.check()
        if self.max_bytes_per_s is not None:
            ahead_s = self.received_bytes / self.max_bytes_per_s
            behind_s = time.monotonic() - self.started_s
            if ahead_s > behind_s:
                self.wait(ahead_s - behind_s)


class _AttemptError(Exception):
    """One attempt did not bring the whole file; what is on disk may still be good."""


class Downloader:
    """Files of one image repository, into the parts of one store."""

    def __init__(
        self,
        repository_url: str,
        store: BlobStore,
        *,
        limits: DownloadLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._url = repository_url.rstrip("/")
        self._store = store
        self._limits = limits or DownloadLimits()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        # Redirects are refused: a file is where the signed path says, or nowhere.
        self._pool = urllib3.PoolManager(
            retries=False,
            timeout=urllib3.Timeout(connect=self._limits.connect_s, read=self._limits.read_s),
        )

    def check_disk(self, files: list[FileRef], free_bytes: Callable[[Path], int]) -> None:
        """Refuse to begin what can not be finished.

        Raises:
            ArtifactError: ``DISK_SPACE``.
        """
        missing = sum(self._store.missing_bytes(file.digest, file.length) for file in files)
        needed = int(missing * DISK_MARGIN) + self._limits.reserve_bytes
        free = free_bytes(self._store.incoming)
        if missing and free < needed:
            detail = f"{needed} bytes are needed with the reserve, {free} are free: make room"
            raise ArtifactError(ReasonCode.DISK_SPACE, detail)

    def fetch(self, file: FileRef, transfer: Transfer) -> None:
        """Leave the whole file in its part, hashed; do nothing when the store holds it.

        Blocks: run it in a thread.

        Raises:
            ArtifactError: ``NETWORK``, ``DIGEST_MISMATCH``, ``DISK_SPACE`` or ``PHASE_DEADLINE``.
        """
        if self._store.holds(file.digest, file.length):
            return
        part = self._store.part(file.digest)
        idle = 0
        while True:
            before = transfer.received_bytes
            try:
                self._attempt(file, part, transfer)
            except (_AttemptError, HTTPError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None and not _network(error):
                    raise ArtifactError(ReasonCode.DISK_SPACE, f"{part.name}: {error}") from error
                idle = 0 if transfer.received_bytes > before else idle + 1
                if idle >= self._limits.idle_attempts:
                    detail = f"{file.path}: {error}; tried {idle} times without a byte"
                    raise ArtifactError(ReasonCode.NETWORK, detail) from error
                log.info("download.interrupted", path=file.path, reason=str(error)[:200])
                transfer.wait(self._backoff_s(idle))
            else:
                return

    def _backoff_s(self, idle: int) -> float:
        limits = self._limits
        return self._rng.uniform(0, min(limits.backoff_cap_s, limits.backoff_base_s * 2**idle))

    def _attempt(self, file: FileRef, part: Path, transfer: Transfer) -> None:
        transfer.check()
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            sink = _Sink(descriptor, file.length)
            resumed = sink.offset > 0
            if sink.offset < file.length:
                self._receive(file, sink, transfer)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if sink.digest() != file.digest:
            part.unlink()
            transfer.mismatches += 1
            # Once may be a resumed file that changed on the server in between; twice is not.
            if not resumed or transfer.mismatches > 1:
                detail = f"{file.path}: the bytes are not the signed ones"
                raise ArtifactError(ReasonCode.DIGEST_MISMATCH, detail)
            msg = "a resumed file was not the signed one, beginning again"
            raise _AttemptError(msg)

    def _receive(self, file: FileRef, sink: "_Sink", transfer: Transfer) -> None:
        headers = {"Accept-Encoding": "identity"}
        if sink.offset:
            headers["Range"] = f"bytes={sink.offset}-"
        response = self._pool.request(
            "GET",
            self._target_url(file),
            headers=headers,
            preload_content=False,
            decode_content=False,
            redirect=False,
        )
        try:
            _check_answer(response, file, sink)
            _stream(response, sink, transfer)
        finally:
            # What was not read must not be read: an endless answer would never end.
            response.close()

    def _target_url(self, file: FileRef) -> str:
        folder, _, name = file.path.rpartition("/")
        return f"{self._url}/targets/{folder}/{file.digest}.{name}"


class _Sink:
    """An open part: appended to, and hashed on the way."""

    def __init__(self, descriptor: int, length: int) -> None:
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._unsynced = 0
        self.length = length
        self.offset = 0
        if os.fstat(descriptor).st_size > length:
            self.restart()
        while chunk := os.pread(descriptor, READ_BYTES, self.offset):
            self._hash.update(chunk)
            self.offset += len(chunk)

    def restart(self) -> None:
        """Forget everything that was received."""
        os.ftruncate(self._descriptor, 0)
        self._hash = hashlib.sha256()
        self.offset = 0

    def write(self, chunk: bytes) -> None:
        """Append."""
        view = memoryview(chunk)
        self._hash.update(view)
        while view:
            count = os.pwrite(self._descriptor, view, self.offset)
            self.offset += count
            self._unsynced += count
            view = view[count:]
        if self._unsynced >= SYNC_EVERY_BYTES:
            # Bounds what a power cut costs, and how much dirty memory a download holds.
            os.fdatasync(self._descriptor)
            self._unsynced = 0

    def digest(self) -> str:
        """The SHA-256 of everything that was received."""
        return self._hash.hexdigest()


def _check_answer(response: urllib3.BaseHTTPResponse, file: FileRef, sink: _Sink) -> None:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        msg = f"the answer is compressed ({encoding[:20]}), which was not asked for"
        raise _AttemptError(msg)
    if response.status == _RANGE_NOT_SATISFIABLE:
        sink.restart()
        msg = "the repository refused the range, beginning again"
        raise _AttemptError(msg)
    if response.status == _OK:
        if sink.offset:
            sink.restart()
    elif response.status == _PARTIAL:
        _check_range(response.headers.get("Content-Range", ""), file, sink.offset)
    else:
        msg = f"the repository answers {response.status}"
        raise _AttemptError(msg)
    promised, missing = response.headers.get("Content-Length"), file.length - sink.offset
    if promised is not None and promised != str(missing):
        detail = f"{file.path}: {promised[:20]} bytes are offered, {missing} are signed"
        raise ArtifactError(ReasonCode.DIGEST_MISMATCH, detail)


def _check_range(content_range: str, file: FileRef, offset: int) -> None:
    match = _CONTENT_RANGE.fullmatch(content_range)
    wanted = (str(offset), str(file.length - 1))
    if (
        match is None
        or match.group(1, 2) != wanted
        or match.group(3) not in {"*", str(file.length)}
    ):
        msg = f"asked for bytes {offset}-, was given {content_range[:60]!r}"
        raise _AttemptError(msg)


def _stream(response: urllib3.BaseHTTPResponse, sink: _Sink, transfer: Transfer) -> None:
    while sink.offset < sink.length:
        chunk = response.read(min(READ_BYTES, sink.length - sink.offset))
        if not chunk:
            msg = f"the connection ended after {sink.offset} of {sink.length} bytes"
            raise _AttemptError(msg)
        sink.write(chunk)
        transfer.account(len(chunk))


def _network(error: OSError) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError))
