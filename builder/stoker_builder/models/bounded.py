"""Running something of a model in a child that can take neither the machine nor the network.

The first run of any model, and everything that loads code, happens there. What comes back is
a small JSON document and files in the child's folder, and both are looked at as if hostile.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.files import read_regular
from stoker_builder.frames import write_frame
from stoker_builder.kernels.sessions import Tensor

MAX_ONNX_BYTES: Final = 2**31 - 1  # of one protobuf message
_MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_TEXT: Final = 600
_SPARE: Final = 0.8
_LEAST_BYTES: Final = 8 * 2**30  # of addresses, not of memory: PyTorch alone reserves gigabytes
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a child may use.

    Attributes:
        seconds: until it is ended.
        memory_bytes: of address space; None for most of what is free.
    """

    seconds: float = 300.0
    memory_bytes: int | None = None


DEFAULT_BOUNDS: Final = Bounds()


def run_bounded(
    task: str,
    request: Mapping[str, object],
    inputs: Mapping[str, Tensor],
    folder: Path,
    bounds: Bounds,
) -> dict[str, Any]:
    """Have a child do ``task`` of ``bounded_child`` in ``folder``.

    Args:
        task: by name.
        request: its arguments; ``code`` stands for whatever goes wrong without a code.
        inputs: one sample.
        folder: the only place that the child can write to; it is made here.
        bounds: what it may use.

    Raises:
        BuildError: the child's own; ``EXHAUSTED`` when it takes too long or too much memory,
            or ends without an answer; ``ISOLATION`` when it must not run here.
    """
    folder.mkdir()
    with (folder / "inputs").open("wb") as stream:
        write_frame(stream, inputs)
    given = {
        **request,
        "task": task,
        "memory_bytes": bounds.memory_bytes or _free_bytes(),
        "cpu_s": int(bounds.seconds * (os.cpu_count() or 1)) + 1,
    }
    (folder / "request.json").write_text(json.dumps(given), encoding="utf-8")
    code = _run(folder, bounds)
    try:
        answer = json.loads(read_regular(folder / "answer.json", _MAX_ANSWER_BYTES))
    except (OSError, ValueError, RecursionError):
        what = f"it ended with {code}{_last_words(folder)}"
        raise _exhausted(what) from None
    if not isinstance(answer, dict):
        what = "its answer is none"
        raise _exhausted(what)
    error = answer.get("error")
    if isinstance(error, dict):
        raise _as_error(error)
    return answer


def _run(folder: Path, bounds: Bounds) -> int:
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment = {
        **kept,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(["", *(p for p in sys.path if p)]),
    }
    with (folder / "stderr").open("wb") as stderr:
        child = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "stoker_builder.models.bounded_child", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
        )
    try:
        return child.wait(bounds.seconds)
    except subprocess.TimeoutExpired:
        what = f"it was not done within {bounds.seconds:g} s"
        raise _exhausted(what) from None
    finally:
        child.kill()
        child.wait()


def _exhausted(what: str) -> BuildError:
    detail = f"the model could not be run once with bounded time and memory: {what}"
    hint = "run it once in Python: does it end, and how much memory does it take?"
    return BuildError(BuildCode.EXHAUSTED, detail, hint)


def _as_error(error: Mapping[str, object]) -> BuildError:
    code, detail, hint = (_text(error.get(name)) for name in ("code", "detail", "hint"))
    known = BuildCode(code) if code in set(BuildCode) else BuildCode.EXHAUSTED
    return BuildError(known, detail, hint)


def _text(value: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(value)[:_MAX_TEXT])


def _last_words(folder: Path) -> str:
    try:
        words = (folder / "stderr").read_bytes()[-_MAX_TEXT:].decode(errors="replace")
    except OSError:
        return ""
    last = [line for line in words.splitlines() if line.strip()]
    return f": {_text(last[-1])}" if last else ""


def _free_bytes() -> int:
    return max(int(psutil.virtual_memory().available * _SPARE), _LEAST_BYTES)
