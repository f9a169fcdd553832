"""OpenVINO's profiler: after each run, how long every node of the compiled graph took."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Inputs
from stoker_builder.profiling.spans import Span
from stoker_contract.manifest import SessionOptions


def record(path: Path, inputs: Inputs, session: SessionOptions, runs: int) -> tuple[Span, ...]:
    """Run an artifact as a device does, and some more times under the profiler.

    Raises:
        BuildError: ``UNSUPPORTED_OP`` or ``DATA_MISMATCH``, when it can not be run.
    """
    import openvino as ov  # noqa: PLC0415  `stoker bench --help` should not pay for it

    from stoker_engine.openvino_backend import settings_of  # noqa: PLC0415  imports it too

    try:
        settings = {**settings_of(session), "PERF_COUNT": True}
        request = ov.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    except Exception as error:  # the binding's errors have no common base class
        detail = f"OpenVINO can not load {path.name}: {error}"[:400]
        raise BuildError(BuildCode.UNSUPPORTED_OP, detail, "is it an ONNX file?") from error
    spans: list[Span] = []
    began = time.perf_counter()
    for run in range(runs + 1):
        at_us = (time.perf_counter() - began) * 1e6
        try:
            request.infer(dict(inputs))
        except Exception as error:
            detail = f"the model refuses a sample: {error}"[:400]
            raise BuildError(BuildCode.DATA_MISMATCH, detail, "give it what it takes") from error
        if run > 0:  # the first one pays for lazy work
            spans += read_spans(request.get_profiling_info(), run, at_us)
    return tuple(spans)


def read_spans(nodes: Any, run: int, begin_us: float) -> Iterator[Span]:  # noqa: ANN401  the runtime has no types
    """Read what one run took. It tells durations only: the nodes are put one after the other."""
    for node in nodes:
        took = getattr(node, "real_time", None)
        if not isinstance(took, timedelta) or not str(getattr(node, "status", "")).endswith(
            "EXECUTED"
        ):
            continue
        duration_us = took / timedelta(microseconds=1)
        name, kind = str(getattr(node, "node_name", "")), str(getattr(node, "node_type", "unknown"))
        yield Span(run, name, kind, begin_us, duration_us, str(getattr(node, "exec_type", "")))
        begin_us += duration_us
