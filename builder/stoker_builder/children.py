"""Ending the child processes that the builder measures and emulates with."""

import contextlib
import subprocess
from typing import Final

END_GRACE_S: Final = 5.0


def end_child(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a child, which ends it; kill it when it does not listen."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    try:
        process.wait(END_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
