"""Taking away from this process what foreign code has no use for. Linux only, before any thread.

Network, other processes and shared memory go with namespaces of its own; writing outside one
folder goes with Landlock, where the kernel has it. Reading does not: what is read can not
leave but through the files that the builder looks at, and those are checked.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
from pathlib import Path
from typing import Final

_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWPID: Final = 0x20000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

# the same numbers on every architecture
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULESET_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_WRITE_FILE: Final = 1 << 1
_CHANGE_TREE: Final = sum(1 << bit for bit in range(4, 13))  # make and remove whatever there is
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_IOCTL_DEVICE: Final = 1 << 15
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11

_libc = ctypes.CDLL(None, use_errno=True)


def limit(*, memory_bytes: int, file_bytes: int, cpu_s: int) -> None:
    """Bound what this process may use; going on without is never an option."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
    with contextlib.suppress(OSError):  # better this one than the build
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def isolate(writable: Path) -> tuple[str, ...]:
    """Give up the network, other processes, and writing anywhere but in ``writable``.

    The namespace of processes begins with the next child of this one; when that child ends,
    all that it has started end too.

    Returns:
        What could not be given up: ``network``, ``files``.
    """
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    missing = []
    if not _leave_namespaces():
        missing.append("network")
    if not _write_only_in(writable):
        missing.append("files")
    return tuple(missing)


def fork_and_wait() -> bool:
    """Return True in a child; in this process, wait for that child and end as it did."""
    child = os.fork()
    if child == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return True
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _leave_namespaces() -> bool:
    apart = _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWIPC
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWUSER | apart) != 0:
        return bool(_libc.unshare(apart) == 0)  # root, where users may have no namespaces
    with contextlib.suppress(OSError):  # without a name it is nobody, which is enough to read
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
    return True


def _write_only_in(folder: Path) -> bool:
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _RULESET_VERSION)
    if version < 1:
        return False
    files = _WRITE_FILE
    for since, right in ((3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        files |= right if version >= since else 0
    everything = files | _CHANGE_TREE | (_REFER if version > 1 else 0)
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0  # noqa: PLR2004  since Linux 6.12
    size = 24 if scoped else 8
    attributes = struct.pack("=QQQ", everything, 0, scoped)[:size]
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    for path, rights in ((folder, everything), (Path(os.devnull), files)):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, descriptor)
        added = _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        os.close(descriptor)
        if added != 0:
            return False
    held = _libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return bool(held == 0)
