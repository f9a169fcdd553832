"""The SQLite file under the journal: opened, checked, and set aside when it is torn."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from stoker_agent.errors import JournalError
from stoker_agent.state import durable
from stoker_contract.codes import ReasonCode

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
PAGE_BYTES: Final = 4096

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE floors (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE accepted (
    only INTEGER PRIMARY KEY CHECK (only = 1), generation INTEGER NOT NULL, sha256 TEXT NOT NULL
) STRICT;
CREATE TABLE refused (sha256 TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE deployments (
    generation INTEGER PRIMARY KEY, deployment_id TEXT NOT NULL, phase TEXT NOT NULL,
    finished INTEGER NOT NULL DEFAULT 0, intent BLOB NOT NULL, progress BLOB NOT NULL
) STRICT;
CREATE TABLE bad_digests (
    digest TEXT PRIMARY KEY, code TEXT NOT NULL, sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, topic TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL) STRICT;
"""

_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_SCHEMA,
    }
)

log: Final = structlog.get_logger("stoker.journal")


class Database:
    """One connection that threads take turns on; every change is one durable transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        durable.make_directory(path.parent)
        self._lock = threading.RLock()
        self._connection = self._open_or_rebuild()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is durable when the block ends, or did not happen.

        Raises:
            JournalError: it did not, since the file can not be written now.
        """
        with self._lock, _as_journal_error(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query answers.

        Raises:
            JournalError: the file can not be read now.
        """
        with self._lock, _as_journal_error(self.path):
            return self._connection.execute(query, values).fetchall()

    def _open_or_rebuild(self) -> sqlite3.Connection:
        try:
            return _open(self.path)
        except sqlite3.OperationalError as error:
            # A busy or unreadable file is not a torn one: never throw state away for that.
            if _may_pass(self.path, error):
                raise _journal_error(self.path, error) from error
            reason = str(error)
        except (sqlite3.DatabaseError, ValueError) as error:  # ValueError: rot in a table's name
            reason = str(error)
        self._set_aside(reason)
        return _open(self.path)

    def rebuild(self, reason: str) -> None:
        """Begin anew: what the file holds makes no sense, whatever SQLite says of it."""
        with self._lock:
            self._connection.close()
            self._set_aside(reason)
            self._connection = _open(self.path)

    def _set_aside(self, reason: str) -> None:
        self.set_aside = _move_away(self.path)
        log.error(
            "journal.rebuilt",
            reason=reason,
            kept_as=str(self.set_aside),
            effect="history and unsent messages are lost; what must not go is in another file",
        )


@contextmanager
def _as_journal_error(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if not _may_pass(path, error):
            raise  # a torn file ends this life, and the next one sets it aside
        raise _journal_error(path, error) from error


def _may_pass(path: Path, error: sqlite3.OperationalError) -> bool:
    code = error.sqlite_errorcode & 0xFF
    if code == sqlite3.SQLITE_READONLY:  # so says a rotten header, too
        return not os.access(path, os.W_OK)
    return code in _PASSING


def _journal_error(path: Path, error: sqlite3.OperationalError) -> JournalError:
    full = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
    # The shared memory beside the file grows by other means, and fails with other words.
    full = full or shutil.disk_usage(path.parent).free < PAGE_BYTES
    code = ReasonCode.DISK_SPACE if full else ReasonCode.INTERNAL
    return JournalError(code, f"{path}: {error}; look at the disk")


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        path.chmod(durable.PRIVATE_FILE)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    version = _version(connection)
    if version == 0:
        _create(connection)
    elif version != SCHEMA_VERSION:
        msg = f"schema {version}, this agent knows {SCHEMA_VERSION}"
        raise sqlite3.DatabaseError(msg)
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if answer != "ok":
        raise sqlite3.DatabaseError(answer)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    if _version(connection) == 0:  # another process may have been faster
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _move_away(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    path.replace(kept)
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.replace(kept.with_name(kept.name + suffix))
    durable.sync_directory(path.parent)
    return kept
