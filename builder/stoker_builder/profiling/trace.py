"""Recordings as a file of trace events, which Perfetto and ``chrome://tracing`` open. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stoker_builder.profiling.spans import Recording, Span

_RUN_TRACK, _NODE_TRACK = 1, 2


def to_trace(recordings: Sequence[Recording]) -> bytes:
    """Write recordings side by side, each as a process that begins at zero."""
    events: list[dict[str, Any]] = []
    for number, recording in enumerate(recordings, start=1):
        events += _named(number, recording)
        events += _events(number, recording.spans)
    document = {"displayTimeUnit": "ms", "traceEvents": events}
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _named(process: int, recording: Recording) -> Iterator[dict[str, Any]]:
    title = f"{recording.title} ({recording.runtime})"
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": title}}
    yield {"ph": "M", "pid": process, "name": "process_sort_index", "args": {"sort_index": process}}
    for track, name in ((_RUN_TRACK, "runs"), (_NODE_TRACK, "operators")):
        entry = {"ph": "M", "pid": process, "tid": track, "name": "thread_name"}
        yield {**entry, "args": {"name": name}}


def _events(process: int, spans: Sequence[Span]) -> Iterator[dict[str, Any]]:
    begin_us = min((span.begin_us for span in spans), default=0.0)
    for run in sorted({span.run for span in spans}):
        yield _run(process, run, [span for span in spans if span.run == run], begin_us)
    for span in spans:
        arguments = {"operator": span.op_type, "run": span.run}
        if span.kernel:
            arguments["kernel"] = span.kernel
        yield {
            "ph": "X",
            "pid": process,
            "tid": _NODE_TRACK,
            "cat": span.op_type,
            "name": span.node or span.op_type,
            "ts": span.begin_us - begin_us,
            "dur": span.duration_us,
            "args": arguments,
        }


def _run(process: int, run: int, spans: Iterable[Span], begin_us: float) -> dict[str, Any]:
    members = list(spans)
    first = min(span.begin_us for span in members)
    last = max(span.begin_us + span.duration_us for span in members)
    return {
        "ph": "X",
        "pid": process,
        "tid": _RUN_TRACK,
        "cat": "run",
        "name": f"run {run}",
        "ts": first - begin_us,
        "dur": last - first,
        "args": {"run": run},
    }
