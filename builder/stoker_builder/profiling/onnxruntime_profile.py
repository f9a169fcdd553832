"""ONNX Runtime's profiler: a list of trace events, one for each kernel and run."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Inputs
from stoker_builder.profiling.spans import Span
from stoker_contract.manifest import SessionOptions

_KERNEL: Final = "_kernel_time"
_RUN: Final = "model_run"


def record(path: Path, inputs: Inputs, session: SessionOptions, runs: int) -> tuple[Span, ...]:
    """Run an artifact as a device does, and some more times under the profiler.

    Raises:
        BuildError: ``UNSUPPORTED_OP`` or ``DATA_MISMATCH``, when it can not be run.
    """
    import onnxruntime as ort  # noqa: PLC0415  `stoker bench --help` should not pay for it

    from stoker_engine.onnxruntime_backend import settings_of  # noqa: PLC0415  imports it too

    with tempfile.TemporaryDirectory(prefix="stk") as folder:
        options = settings_of(session)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            opened = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a class of its own for each kind
            detail = f"ONNX Runtime can not load {path.name}: {error}"[:400]
            raise BuildError(BuildCode.UNSUPPORTED_OP, detail, "is it an ONNX file?") from error
        try:
            for _ in range(runs + 1):
                opened.run(None, dict(inputs))
        except Exception as error:
            detail = f"the model refuses a sample: {error}"[:400]
            raise BuildError(BuildCode.DATA_MISMATCH, detail, "give it what it takes") from error
        return read_spans(Path(opened.end_profiling()).read_bytes())


def read_spans(profile: bytes) -> tuple[Span, ...]:
    """Read a profile; the first run, which pays for lazy work, is left out.

    What is not as expected is left out as well: versions differ in what they write.
    """
    try:
        events = json.loads(profile)
    except ValueError:
        return ()
    if not isinstance(events, list):
        return ()
    known = [event for event in events if isinstance(event, dict)]
    ends = sorted(_end(event) for event in known if event.get("name") == _RUN)
    return tuple(_spans(known, ends))


def _spans(events: list[dict[str, Any]], ends: list[float]) -> Iterator[Span]:
    for event in events:
        name, arguments = event.get("name"), event.get("args")
        if not isinstance(name, str) or not name.endswith(_KERNEL):
            continue
        begin, duration = event.get("ts"), event.get("dur")
        if not isinstance(begin, int | float) or not isinstance(duration, int | float):
            continue
        run = sum(end < begin for end in ends)
        if run == 0 and len(ends) > 1:
            continue
        op_type = arguments.get("op_name") if isinstance(arguments, dict) else None
        node = name.removesuffix(_KERNEL)
        yield Span(run, node, str(op_type or "unknown"), float(begin), float(duration))


def _end(event: dict[str, Any]) -> float:
    begin, duration = event.get("ts"), event.get("dur")
    if isinstance(begin, int | float) and isinstance(duration, int | float):
        return float(begin + duration)
    return 0.0
