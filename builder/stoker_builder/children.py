"""Models in processes of their own, which answer samples and time themselves.

What a process may use of the processor, and how it allocates memory, is settled by its
environment when it starts; native code may crash or never come back. So the builder asks a
child, whose other side is :mod:`stoker_builder.child_loop`, and gives up one that takes too
long: that is the end of a candidate, not of a build.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import numpy as np
from numpy.typing import NDArray

from stoker_builder.child_loop import ANSWER, TIME
from stoker_builder.environment import own_environment
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import read_frame, write_frame

Arrays = Mapping[str, NDArray[np.generic]]

END_GRACE_S: Final = 5.0
_LOOK_S: Final = 1.0  # how often the clock is looked at: seldom, beside something that is timed


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a child may take, in seconds: to be ready, and for one answer."""

    start_s: float = 300.0
    run_s: float = 120.0


class ModelChild:
    """A context manager whose value answers samples and times itself.

    Args:
        module: what runs in the process, with the name of a set-up file as its argument.
        setup: its settings, as JSON.
        inputs: the sample that is timed, batch axis included.
        more: further samples for the set-up.
        title: what it is called when something is wrong with it.
        hint: what to do then.
        limits: after which it is killed.
    """

    def __init__(  # noqa: PLR0913 - the settings of one child
        self,
        module: str,
        setup: Mapping[str, object],
        inputs: Arrays,
        *,
        more: Iterable[Arrays] = (),
        title: str,
        hint: str,
        limits: Limits,
    ) -> None:
        self._module = module
        self._setup = setup
        self._samples = (inputs, more)
        self._title = title
        self._hint = hint
        self._limits = limits
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Path | None = None
        self._deadline: float | None = None
        self._expired = False

    def __enter__(self) -> Self:
        """Start the process and wait until its model has been loaded.

        Raises:
            BuildError: ``MEASURE``; it did not come up; the message ends with what it said.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Answer one sample with all outputs.

        Raises:
            BuildError: ``MEASURE``; the process died or took too long.
        """
        with self._asking(ANSWER, self._limits.run_s) as (requests, answers):
            write_frame(requests, inputs)
            outputs = read_frame(answers)
            if outputs is None:
                raise BrokenPipeError
        return outputs

    def time_once_ns(self) -> int:
        """Run the timed sample once and return how long it took over there.

        Raises:
            BuildError: ``MEASURE``; the process died or took too long.
        """
        with self._asking(TIME, self._limits.run_s) as (_, answers):
            return int(_line(answers))

    def close(self) -> None:
        """End the process; closing twice is harmless."""
        self._stack.close()

    def _environment(self, scratch: Path) -> Mapping[str, str]:
        """The environment of the process, which may use the folder."""
        del scratch
        return own_environment()

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            detail = f"{self._title} is not running"
            raise BuildError(BuildCode.MEASURE, detail, "use it in a with")
        return self._process

    def _start(self) -> None:
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stk")))
        # a file, not the pipe: a child that hangs before it reads must not hang its parent
        setup = scratch / "setup"
        with setup.open("wb") as stream:
            stream.write(json.dumps(self._setup).encode() + b"\n")
            inputs, more = self._samples
            for sample in (inputs, *more):
                write_frame(stream, sample)
        self._errors = scratch / "stderr"
        stderr = self._stack.enter_context(self._errors.open("wb"))
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", self._module, str(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**self._environment(scratch)},
        )
        self._stack.callback(self._end)
        self._stack.enter_context(self._watched(self._process))
        with self._asking(b"", self._limits.start_s) as (_, answers):
            _line(answers)

    @contextlib.contextmanager
    def _asking(self, request: bytes, limit_s: float) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Send a request; what the other side does not answer in time kills it."""
        child = self._child
        assert child.stdin is not None  # noqa: S101 - both were opened as pipes
        assert child.stdout is not None  # noqa: S101
        self._deadline = time.monotonic() + limit_s
        try:
            child.stdin.write(request)
            child.stdin.flush()
            yield child.stdin, child.stdout
        except BrokenPipeError:
            raise self._failure(limit_s) from None
        finally:
            self._deadline = None

    @contextlib.contextmanager
    def _watched(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        ended = threading.Event()
        look_s = min(_LOOK_S, self._limits.run_s)

        def watch() -> None:
            while not ended.wait(look_s):
                deadline = self._deadline
                if deadline is not None and time.monotonic() > deadline:
                    self._expired = True
                    process.kill()
                    return

        thread = threading.Thread(target=watch, name=f"limit of {self._module}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _failure(self, limit_s: float) -> BuildError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_GRACE_S)
        if self._expired:
            detail = f"{self._title} gave no answer within {limit_s:g} s"
            return BuildError(BuildCode.MEASURE, detail, "run the model alone to see why")
        said = ""
        if self._errors is not None:
            said = self._errors.read_text(encoding="utf-8", errors="replace").strip()[-800:]
        code = self._child.returncode
        detail = f"{self._title} could not run the model (exit {code}): {said}"
        return BuildError(BuildCode.MEASURE, detail, self._hint)

    def _end(self) -> None:
        process, self._process = self._child, None
        end_child(process)


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


def _line(answers: IO[bytes]) -> bytes:
    line = answers.readline()
    if not line.endswith(b"\n"):
        raise BrokenPipeError
    return line
