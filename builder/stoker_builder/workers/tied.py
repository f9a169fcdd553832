"""Becomes a command that does not outlive who started it: ``tied PID COMMAND...``.

A worker that is killed must not leave a compiler behind that holds the GPU and the memory.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def tie_to_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Tie, look whether it was in time, and become the command."""
    parent, *command = sys.argv[1:]
    tie_to_parent()
    if os.getppid() != int(parent):
        sys.exit("whoever started this has gone")
    os.execv(command[0], command)  # noqa: S606  no shell is what is wanted


if __name__ == "__main__":
    main()
