"""A PyTorch model as a variant to measure and to judge, in a child process of its own.

A third of eager's time on a small convolution net is page faults that a ``MALLOC_*`` setting
removes. That setting is read when a process starts and must not touch the other variants; and
``torch.compile`` changes settings of its whole process. So each of PyTorch's routes runs in a
child whose environment is its own, and takes turns with the parent::

    from stoker_builder.latency.torch_process import TorchChild
    from stoker_builder.latency.torch_routes import ROUTES

    with TorchChild(
        "package.module:factory", sample.inputs,
        route=ROUTES["torch-int8-static"], calibration=(s.inputs for s in some), threads=2,
    ) as child:
        outputs = child.run(sample.inputs)      # as a Session answers: for its accuracy
        nanoseconds = child.time_once_ns()      # a ``ChildTimed`` variant of ``measure``

A route that can not run this model raises ``BuildError`` (``MEASURE``) on entering, and the
error ends with what PyTorch said: a row of its own, never the end of a comparison.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stoker_builder.children import END_GRACE_S, end_child
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import read_frame, write_frame
from stoker_builder.latency.torch_routes import EAGER, TorchRoute

Arrays = Mapping[str, NDArray[np.generic]]

_ANSWER: Final = b"answer\n"
_TIME: Final = b"time\n"


class TorchChild:
    """A context manager whose value answers samples and times itself.

    Args:
        factory: ``package.module:function`` or ``path/to/file.py:function``, returning a module.
        inputs: the sample that is timed, in the order of the module's arguments, batch axis
            included.
        route: what is done with the module, see ``latency.torch_routes``.
        calibration: samples for the routes that need them; others do not look at them.
        weights: a safetensors file for ``load_state_dict``, unless the factory loads its own.
        threads: PyTorch's intra-op threads.
        run_timeout_s: for one inference.
    """

    def __init__(  # noqa: PLR0913 - the settings of one child
        self,
        factory: str,
        inputs: Arrays,
        *,
        route: TorchRoute = EAGER,
        calibration: Iterable[Arrays] = (),
        weights: Path | None = None,
        threads: int = 1,
        run_timeout_s: float = 120.0,
    ) -> None:
        self._setup = {
            "factory": factory,
            "weights": str(weights) if weights is not None else None,
            "threads": threads,
            "method": route.method,
        }
        self._route = route
        self._inputs = inputs
        self._calibration = calibration
        self._threads = threads
        self._run_timeout_s = run_timeout_s
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Path | None = None

    def __enter__(self) -> Self:
        """Start the child and wait until its model has run once.

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
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the child."""
        self.close()

    @property
    def pid(self) -> int:
        """The child's process."""
        return self._child.pid

    def time_once_ns(self) -> int:
        """Run one inference of the timed sample; return the nanoseconds it took in the child.

        Raises:
            BuildError: ``MEASURE``; the child died or took too long.
        """
        self._send(_TIME)
        return int(self._read(self._run_timeout_s)["ns"])

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Answer one sample, with the output names that an export would have.

        Raises:
            BuildError: ``MEASURE``; the child died or took too long.
        """
        self._send(_ANSWER, inputs)
        self._read(self._run_timeout_s)
        stdout = self._child.stdout
        assert stdout is not None  # noqa: S101 - opened as a pipe
        outputs = read_frame(stdout)
        if outputs is None:
            raise self._failure()
        return outputs

    def close(self) -> None:
        """End the child; closing twice is harmless."""
        self._stack.close()

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BuildError(BuildCode.MEASURE, "TorchChild is not running", "use it in a with")
        return self._process

    def _start(self) -> None:
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stk")))
        # a file, not the pipe: a child that hangs before it reads must not hang its parent
        setup = scratch / "setup"
        with setup.open("wb") as stream:
            stream.write(json.dumps(self._setup).encode() + b"\n")
            write_frame(stream, self._inputs)
            for inputs in self._calibration if self._route.calibrated else ():
                write_frame(stream, inputs)
        self._errors = scratch / "stderr"
        stderr = self._stack.enter_context(self._errors.open("wb"))
        self._process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "stoker_builder.latency.torch_child", str(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=self._environment(scratch),
        )
        self._stack.callback(self._end)
        self._read(self._route.start_timeout_s)

    def _send(self, command: bytes, inputs: Arrays | None = None) -> None:
        stdin = self._child.stdin
        assert stdin is not None  # noqa: S101 - opened as a pipe
        try:
            stdin.write(command)
            stdin.flush()
            if inputs is not None:
                write_frame(stdin, inputs)
        except BrokenPipeError:
            raise self._failure() from None

    def _environment(self, scratch: Path) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_"))}
        return {
            "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
            **kept,
            **self._route.allocator,
            "OMP_NUM_THREADS": str(self._threads),
            # compiling in helper processes would leave them behind, beside what is timed
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(["", *(p for p in sys.path if p)]),
        }

    def _read(self, timeout_s: float) -> dict[str, Any]:
        stdout = self._child.stdout
        assert stdout is not None  # noqa: S101 - opened as a pipe
        # One line per request: nothing is ever left in the buffer for select to miss.
        readable, _, _ = select.select([stdout], [], [], timeout_s)
        if not readable:
            detail = f"{self._route.title} gave no answer within {timeout_s:g} s"
            raise BuildError(BuildCode.MEASURE, detail, "run the model alone to see why")
        line = stdout.readline()
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self) -> BuildError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_GRACE_S)
        said = ""
        if self._errors is not None:
            said = self._errors.read_text(encoding="utf-8", errors="replace").strip()[-800:]
        detail = (
            f"{self._route.title} could not run the model (exit {self._child.returncode}): {said}"
        )
        return BuildError(BuildCode.MEASURE, detail, "call the factory alone to see where")

    def _end(self) -> None:
        process, self._process = self._child, None
        end_child(process)
