"""One controller a database, and whether there is one: a lock that the kernel lets go of."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from stoker_contract.codes import ReasonCode
from stoker_fleet.errors import FleetError

_LOCK_RETRY_S: Final = 2.0
_LOCK_POLL_S: Final = 0.05


@contextmanager
def only_controller(database: Path) -> Iterator[None]:
    """Hold the controller's lock of a database.

    Raises:
        FleetError: somebody else holds it.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with _lock_file(database).open("a") as lock:
        deadline_s = time.monotonic() + _LOCK_RETRY_S
        while not _try_lock(lock, fcntl.LOCK_EX):
            # Who only asks whether there is a controller holds the lock for a moment, too.
            if time.monotonic() >= deadline_s:
                detail = f"a controller already works on {database}"
                raise FleetError(ReasonCode.BAD_REQUEST, detail)
            time.sleep(_LOCK_POLL_S)
        yield


def is_controller_running(database: Path) -> bool:
    """Whether a controller works on a database. The kernel knows: a lock dies with its owner."""
    path = _lock_file(database)
    if not path.exists():
        return False
    with path.open("a") as lock:
        # Shared, so that two that ask at the same time do not see each other.
        return not _try_lock(lock, fcntl.LOCK_SH)


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(database: Path) -> Path:
    return database.with_name(f"{database.name}.controller")
