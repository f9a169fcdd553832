"""Processes that run one file side by side, perhaps emulated, until inputs or time are used up."""

import contextlib
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.children import END_GRACE_S, end_child
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import read_frame, write_frame

Arrays = Mapping[str, NDArray[np.generic]]

_START_LIMIT_S: Final = 120.0  # under emulation the imports alone take some seconds


class Feed:
    """Hands out inputs to several workers and collects their answers in order.

    Args:
        inputs: what to answer.
        budget_s: how long answering may take; what it takes to start is not counted.
        progress: called with the number of answers so far.

    Attributes:
        complete: False when the time ended before the inputs did.
    """

    def __init__(
        self, inputs: Iterable[Arrays], budget_s: float, progress: Callable[[int], None] | None
    ) -> None:
        self._inputs = enumerate(inputs)
        self._answers: dict[int, Arrays] = {}
        self._lock = threading.Lock()
        self._progress = progress or (lambda _count: None)
        self._budget_s = budget_s
        self._began: float | None = None
        self.complete = True

    def begin(self) -> float:
        """Say that a worker is ready; returns when the time is up, on the monotonic clock."""
        with self._lock:
            if self._began is None:
                self._began = time.monotonic()
            return self._began + self._budget_s

    @property
    def seconds(self) -> float:
        """Since the first worker was ready."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def take(self) -> tuple[int, Arrays] | None:
        """The next input and its position; None when there are no more."""
        with self._lock:
            return next(self._inputs, None)

    def put(self, index: int, answer: Arrays) -> None:
        """Keep an answer."""
        with self._lock:
            self._answers[index] = answer
            self._progress(len(self._answers))

    def answered(self) -> tuple[Arrays, ...]:
        """Return the answers up to the first gap, so that they pair with the inputs."""
        upto = next(i for i in range(len(self._answers) + 1) if i not in self._answers)
        return tuple(self._answers[i] for i in range(upto))


def answer_all(command: Sequence[str], environment: Mapping[str, str], feed: Feed) -> None:
    """Run one process of :mod:`kernels.isa_child` until the inputs or the time are used up.

    Raises:
        BuildError: ``MEASURE``; it failed or did not start; the detail ends with what it said.
    """
    with _Child.started(command, environment) as child:
        if child.hear() is None:
            raise child.failure()
        deadline = feed.begin()
        child.kill_at(deadline)
        while (item := feed.take()) is not None:
            index, inputs = item
            outputs = child.ask(inputs)
            if outputs is None and time.monotonic() < deadline:
                raise child.failure()
            if outputs is None:
                feed.complete = False
                return
            feed.put(index, outputs)


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    errors: Path
    timer: threading.Timer

    @classmethod
    @contextlib.contextmanager
    def started(cls, command: Sequence[str], environment: Mapping[str, str]) -> Iterator["_Child"]:
        """Start a process that is dead in time and never outlives the block."""
        with tempfile.TemporaryDirectory(prefix="stk") as scratch:
            errors = Path(scratch) / "stderr"
            with errors.open("wb") as stderr:
                process = subprocess.Popen(  # noqa: S603 - our own module under our own Python
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=environment,
                )
            child = cls(process, errors, _timer(process, _START_LIMIT_S))
            try:
                yield child
            finally:
                child.timer.cancel()
                end_child(process)

    def kill_at(self, deadline: float) -> None:
        """It has until then, on the monotonic clock."""
        self.timer.cancel()
        self.timer = _timer(self.process, deadline - time.monotonic())

    def ask(self, inputs: Arrays) -> Arrays | None:
        """Its answer; None when it died."""
        assert self.process.stdin is not None  # noqa: S101 - a pipe
        try:
            write_frame(self.process.stdin, inputs)
        except BrokenPipeError:
            return None
        return self.hear()

    def hear(self) -> Arrays | None:
        """What it says next; None when it died."""
        assert self.process.stdout is not None  # noqa: S101 - a pipe
        return read_frame(self.process.stdout)

    def failure(self) -> BuildError:
        """Why it died."""
        code = self.process.wait(END_GRACE_S)
        said = self.errors.read_text(encoding="utf-8", errors="replace").strip()[-800:]
        detail = f"the model could not be run for this instruction set (exit {code}): {said}"
        return BuildError(BuildCode.MEASURE, detail, "run the file alone with ONNX Runtime")


def _timer(process: subprocess.Popen[bytes], limit_s: float) -> threading.Timer:
    timer = threading.Timer(max(limit_s, 0.0), process.kill)
    timer.daemon = True
    timer.start()
    return timer
