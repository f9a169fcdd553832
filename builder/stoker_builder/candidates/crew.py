"""Quantising in several processes at a time: nothing is timed meanwhile, so all cores may work."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import IO, Final, Self

from stoker_builder.candidates.orders import Order
from stoker_builder.candidates.quantise import carry_out
from stoker_builder.children import end_child
from stoker_builder.environment import own_environment
from stoker_builder.errors import BuildCode, BuildError

SMALL_BYTES: Final = 4 * 1024 * 1024
"""A model below it is quantised before a process has started."""
MAX_PROCESSES: Final = 4

_LAST_BYTES: Final = 4096

Done = Callable[[Order, BuildError | None], None]


def carry_out_all(orders: Sequence[Order], done: Done) -> None:
    """Make all files.

    Args:
        orders: what to make.
        done: called after each, in any order but one at a time, with what went wrong.

    A process that dies, of too little memory say, is the end of one file and not of the others.
    """
    large = [order for order in orders if order.model.stat().st_size >= SMALL_BYTES]
    processes = min(os.cpu_count() or 1, MAX_PROCESSES, len(large))
    if processes <= 1:
        for order in orders:
            done(order, _failure_here(order))
        return
    lock = threading.Lock()
    left = iter(orders)

    def work() -> None:
        with _Child() as child:
            while True:
                with lock:
                    order = next(left, None)
                if order is None:
                    return
                failure = child.carry_out(order)
                with lock:
                    done(order, failure)

    with ThreadPoolExecutor(processes, thread_name_prefix="quantise") as pool:
        working = [pool.submit(work) for _ in range(processes)]
    for one in working:
        one.result()


def _failure_here(order: Order) -> BuildError | None:
    try:
        carry_out(order)
    except BuildError as error:
        return error
    return None


class _Child:
    """A process that carries out orders."""

    def __init__(self) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = self._started()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_child(self._process)
        self._said.close()

    def carry_out(self, order: Order) -> BuildError | None:
        """Have a file made; what went wrong with it."""
        try:
            _pipe(self._process.stdin).write(order.encode().encode() + b"\n")
            _pipe(self._process.stdin).flush()
            line = _pipe(self._process.stdout).readline()
        except BrokenPipeError:
            line = b""
        if not line:
            end_child(self._process)
            code, words = self._process.returncode, self._last_words()
            self._process = self._started()
            detail = f"{order.recipe.name}: the process that quantises ended with {code}{words}"
            hint = "is there enough memory? build with --precision fp32 otherwise"
            return BuildError(BuildCode.QUANTISE, detail, hint)
        told = json.loads(line)
        return BuildError(BuildCode(told["code"]), told["detail"], told["hint"]) if told else None

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "stoker_builder.candidates.quantise_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=own_environment(),
        )

    def _last_words(self) -> str:
        """The last line that the process wrote, whose reason it often is."""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _LAST_BYTES))
        lines = self._said.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        self._said.seek(0)
        self._said.truncate()
        return f" ({said[-1][:200]})" if said else ""


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 - both are pipes
    return pipe
