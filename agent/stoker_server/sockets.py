"""The listening sockets: own ones with tight modes, or those a service manager passes."""

import contextlib
import fcntl
import grp
import os
import socket
from pathlib import Path
from typing import Final

_FIRST_PASSED_FD: Final = 3
_BACKLOG: Final = 1024


class AlreadyRunningError(Exception):
    """Another server holds the run directory."""


def lock(run_dir: Path) -> int:
    """Hold the run directory for as long as this process lives.

    Raises:
        AlreadyRunningError: another server does.
    """
    fd = os.open(run_dir / "server.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        detail = f"another stoker-server uses {run_dir}; stop it or choose another --run-dir"
        raise AlreadyRunningError(detail) from None
    return fd


def listen_unix(path: Path, mode: int, group: str = "") -> socket.socket:
    """Listen at ``path``, replacing what a killed server left there. The lock is held.

    The socket is given to ``group`` where there is such a group and we may.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    if group:
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
    listener.listen(_BACKLOG)
    return listener


def listen_tcp(host: str, port: int) -> socket.socket:
    """Listen on TCP; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(_BACKLOG)
    return listener


def passed() -> list[socket.socket]:
    """Sockets that a service manager opened for us (LISTEN_FDS)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    found = []
    for fd in range(_FIRST_PASSED_FD, _FIRST_PASSED_FD + count):
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
        found.append(socket.socket(fileno=fd))
    return found
