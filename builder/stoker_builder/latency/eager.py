"""PyTorch eager as a variant to measure, in a child process.

A third of eager's time on a small convolution net is page faults that a ``MALLOC_*`` setting
removes. That setting is read when a process starts and must not touch the other variants, so
eager runs in a child whose environment is its own, and takes turns with the parent.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from stoker_builder.children import END_GRACE_S, end_child
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import write_frame

TUNED_ALLOCATOR: Final[Mapping[str, str]] = {
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}


class EagerChild:
    """A context manager whose value runs one eager inference per call.

    Args:
        factory: ``package.module:function`` or ``path/to/file.py:function``, returning a module.
        inputs: one sample, in the order of the module's arguments, batch axis included.
        weights: a safetensors file for ``load_state_dict``, unless the factory loads its own.
        threads: PyTorch's intra-op threads.
        allocator: ``MALLOC_*`` variables of the child; those of this process never reach it.
        start_timeout_s: for importing PyTorch and building the model.
        run_timeout_s: for one inference.
    """

    def __init__(  # noqa: PLR0913 - the settings of one child
        self,
        factory: str,
        inputs: Mapping[str, NDArray[np.generic]],
        *,
        weights: Path | None = None,
        threads: int = 1,
        allocator: Mapping[str, str] | None = None,
        start_timeout_s: float = 120.0,
        run_timeout_s: float = 120.0,
    ) -> None:
        self._setup = {
            "factory": factory,
            "weights": str(weights) if weights is not None else None,
            "threads": threads,
        }
        self._inputs = inputs
        self._threads = threads
        self._allocator = dict(allocator or {})
        self._start_timeout_s = start_timeout_s
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

    def __call__(self) -> int:
        """Run one inference and return the nanoseconds it took in the child."""
        return self.time_once_ns()

    @property
    def pid(self) -> int:
        """The child's process."""
        return self._child.pid

    def time_once_ns(self) -> int:
        """Run one inference and return the nanoseconds it took in the child.

        Raises:
            BuildError: ``MEASURE``; the child died or took too long.
        """
        stdin = self._child.stdin
        assert stdin is not None  # noqa: S101 - opened as a pipe
        try:
            stdin.write(b"run\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return int(self._read(self._run_timeout_s)["ns"])

    def close(self) -> None:
        """End the child; closing twice is harmless."""
        self._stack.close()

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BuildError(BuildCode.MEASURE, "EagerChild is not running", "use it in a with")
        return self._process

    def _start(self) -> None:
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stk")))
        self._errors = scratch / "stderr"
        stderr = self._stack.enter_context(self._errors.open("wb"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stoker_builder.latency.eager_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=self._environment(),
        )
        self._stack.callback(self._end)
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - opened as a pipe
        try:
            stdin.write(json.dumps(self._setup).encode() + b"\n")
            write_frame(stdin, self._inputs)
        except BrokenPipeError:
            raise self._failure() from None
        self._read(self._start_timeout_s)

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_"))}
        return {
            **kept,
            **self._allocator,
            "OMP_NUM_THREADS": str(self._threads),
            "PYTHONPATH": os.pathsep.join(["", *(p for p in sys.path if p)]),
        }

    def _read(self, timeout_s: float) -> dict[str, Any]:
        stdout = self._child.stdout
        assert stdout is not None  # noqa: S101 - opened as a pipe
        # One line per request: nothing is ever left in the buffer for select to miss.
        readable, _, _ = select.select([stdout], [], [], timeout_s)
        if not readable:
            detail = f"PyTorch eager gave no answer within {timeout_s:g} s"
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
        detail = f"PyTorch eager could not run the model (exit {self._child.returncode}): {said}"
        return BuildError(BuildCode.MEASURE, detail, "call the factory alone to see where")

    def _end(self) -> None:
        process, self._process = self._child, None
        end_child(process)
