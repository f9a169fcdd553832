"""What takes long to make, made once for all processes that share the tests."""

import fcntl
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

Made = TypeVar("Made")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """What ``make`` made in the folder it is given, in this process or in one beside it.

    Args:
        factory: for a folder that the processes have in common.
        name: of that folder.
        make: its answer travels through pickle.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, answer = base / name, base / f"{name}.pickle"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            folder.mkdir(exist_ok=True)
            answer.write_bytes(pickle.dumps(make(folder)))
        made: Made = pickle.loads(answer.read_bytes())  # noqa: S301  written by the line above
        return made
