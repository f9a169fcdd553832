"""Running candidates with the engine code that ships: in this process, or in one of its own."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from stoker_builder.children import END_GRACE_S, end_child
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import read_frame, write_frame
from stoker_builder.kernels.places import Place, Way
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind
from stoker_engine.backends import open_engine
from stoker_engine.engine import EngineError

Arrays = Mapping[str, NDArray[np.generic]]

ANSWER: Final = b"answer\n"
TIME: Final = b"time\n"


class EngineRunner:
    """An engine in this process.

    Raises:
        BuildError: ``UNSUPPORTED_OP``, when its runtime can not load the file.
    """

    def __init__(self, path: Path, session: SessionOptions) -> None:
        try:
            self.engine = open_engine(str(path), ArtifactKind.ONNX, session)
        except EngineError as error:
            hint = "ship it with another runtime; the build goes on without this candidate"
            detail = f"{path.name} can not be loaded: {error.detail[:400]}"
            raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint) from None
        self._names = [spec.name for spec in self.engine.io.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        """Answer one sample with all outputs.

        Raises:
            BuildError: ``DATA_MISMATCH``, when the model can not take it.
        """
        try:
            outputs = self.engine.run(inputs, self._names)
        except EngineError as error:
            detail = f"the model refuses a sample: {error.detail[:400]}"
            hint = "each sample needs the model's input names, types and shapes"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, hint) from None
        return dict(zip(self._names, outputs, strict=True))

    def __call__(self, inputs: Arrays) -> object:
        """Run for the time it takes. Raises as :meth:`run`."""
        try:
            return self.engine.run(inputs, self._names)
        except EngineError as error:
            detail = f"it ran before and does not now: {error.detail[:400]}"
            raise BuildError(BuildCode.MEASURE, detail, "run the build again") from None


class EngineChild:
    """An engine in a process of its own, in a place that says what instructions it may use.

    A context manager. It answers like :class:`EngineRunner`, and times itself over there.

    Args:
        path: the artifact.
        session: how it is run.
        inputs: the sample that is timed.
        place: whose environment is added to that of this process.
    """

    def __init__(self, path: Path, session: SessionOptions, inputs: Arrays, place: Place) -> None:
        self._setup = {"path": str(path), "session": session.to_object()}
        self._inputs = inputs
        self._place = place
        self._name = path.name
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = Path()

    def __enter__(self) -> Self:
        """Start the process and wait until the engine is loaded.

        Raises:
            BuildError: ``MEASURE``; the message ends with what it said.
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

    def run(self, inputs: Arrays) -> Arrays:
        """Answer one sample with all outputs.

        Raises:
            BuildError: ``MEASURE``; the process is gone.
        """
        self._send(ANSWER)
        self._frame(inputs)
        assert self._child.stdout is not None  # noqa: S101 - opened as a pipe
        outputs = read_frame(self._child.stdout)
        if outputs is None:
            raise self._failure()
        return outputs

    def time_once_ns(self) -> int:
        """Run the timed sample once and return how long it took over there.

        Raises:
            BuildError: ``MEASURE``; the process is gone.
        """
        self._send(TIME)
        assert self._child.stdout is not None  # noqa: S101 - opened as a pipe
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._failure()
        return int(line)

    def close(self) -> None:
        """End the process; closing twice is harmless."""
        self._stack.close()

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BuildError(BuildCode.MEASURE, "EngineChild is not running", "use it in a with")
        return self._process

    def _start(self) -> None:
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stk")))
        self._errors = scratch / "stderr"
        stderr = self._stack.enter_context(self._errors.open("wb"))
        first = [str(self._place.packages)] if self._place.packages else []
        paths = os.pathsep.join([*first, *(p for p in sys.path if p)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stoker_builder.kernels.engine_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **self._place.environment, "PYTHONPATH": paths},
        )
        self._stack.callback(end_child, self._process)
        self._send(json.dumps(self._setup).encode() + b"\n")
        self._frame(self._inputs)
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        if not self._process.stdout.readline().endswith(b"\n"):
            raise self._failure()

    def _send(self, line: bytes) -> None:
        assert self._child.stdin is not None  # noqa: S101 - opened as a pipe
        try:
            self._child.stdin.write(line)
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def _frame(self, arrays: Arrays) -> None:
        assert self._child.stdin is not None  # noqa: S101 - opened as a pipe
        try:
            write_frame(self._child.stdin, arrays)
        except BrokenPipeError:
            raise self._failure() from None

    def _failure(self) -> BuildError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_GRACE_S)
        said = self._errors.read_text(encoding="utf-8", errors="replace").strip()[-800:]
        detail = f"{self._name} could not be run (exit {self._child.returncode}): {said}"
        return BuildError(BuildCode.MEASURE, detail, "run it again; report it if it repeats")


def runner_at(
    place: Place, path: Path, session: SessionOptions, example: Arrays, stack: contextlib.ExitStack
) -> EngineRunner | EngineChild:
    """Something that answers in a place, until the stack is closed.

    Raises:
        BuildError: ``UNSUPPORTED_OP`` or ``MEASURE``, when it can not be loaded.
    """
    if place.way is Way.NATIVE:
        return EngineRunner(path, session)
    return stack.enter_context(EngineChild(path, session, example, place))
