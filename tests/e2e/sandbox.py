"""Namespaces of our own: what a run mounts, starts or plugs in ends with it, even if it is killed.

Three processes: the one that was started waits outside; the first one inside is the init of the
process namespace, and the kernel ends everything inside when it ends; its child does the work.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from types import FrameType
from typing import Final

_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_PR_SET_PDEATHSIG: Final = 1

_libc: Final = ctypes.CDLL(None, use_errno=True)


def run_in_sandbox(body: Callable[[], int], entered: Callable[[int], None]) -> int:
    """Run ``body`` with mounts, network and process ids of its own. Returns its exit status.

    Args:
        body: it may leave processes, mounts and interfaces behind; none of them survives it.
        entered: is told the process id of the sandbox's init, as seen from outside.

    Raises:
        OSError: this machine does not let us.
    """
    _unshare(_CLONE_NEWPID)  # of the children; we stay outside, and can not fork afterwards
    init = os.fork()
    if init == 0:
        os._exit(_be_init(body))
    entered(init)
    # A terminal sends Ctrl-C to all three; the one that works ends in order, the others wait.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _forward_to(init, signal.SIGTERM))
    return _exit_status(os.waitpid(init, 0)[1])


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "no namespaces: " + os.strerror(ctypes.get_errno()))


def _be_init(body: Callable[[], int]) -> int:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _unshare(_CLONE_NEWNS | _CLONE_NEWNET)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for command in (
        ("mount", "--make-rprivate", "/"),
        ("mount", "-t", "proc", "proc", "/proc"),
        # Names of network namespaces and what containers note down are ours alone.
        ("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"),
        ("ip", "link", "set", "lo", "up"),
    ):
        subprocess.run(command, check=True)
    worker = os.fork()
    if worker == 0:
        os._exit(_work(body))
    signal.signal(signal.SIGTERM, _forward_to(worker, signal.SIGTERM))
    while True:  # orphans are adopted here, and reaped
        pid, status = os.wait()
        if pid == worker:
            return _exit_status(status)


def _work(body: Callable[[], int]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return body()
    except KeyboardInterrupt:
        return 130


def _forward_to(pid: int, number: signal.Signals) -> Callable[[int, FrameType | None], None]:
    def forward(_number: int, _frame: FrameType | None) -> None:
        os.kill(pid, number)

    return forward


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
