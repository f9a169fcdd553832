"""Where the time goes: two profilers, one answer, and a trace that viewers open."""

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.profiling import onnxruntime_profile, openvino_profile
from stoker_builder.profiling.record import record_artifact
from stoker_builder.profiling.spans import MAX_TYPES, Recording, Span, profile_of
from stoker_builder.profiling.trace import to_trace
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime

INPUTS = {"x": np.zeros((1, 3, 16, 16), np.float32)}
RUNTIMES = (Runtime.ONNXRUNTIME, Runtime.OPENVINO)


def spans(*entries: tuple[int, str, str, float]) -> Recording:
    """A recording of nodes one after the other."""
    made, at = [], 0.0
    for run, node, op_type, duration in entries:
        made.append(Span(run, node, op_type, at, duration))
        at += duration
    return Recording("made up", "onnxruntime", tuple(made))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_runtime_says_where_the_time_goes(tiny_onnx: Path, runtime: Runtime) -> None:
    """The same kind of answer from both profilers: convolutions are in it, shares add up."""
    recording = record_artifact(
        tiny_onnx, INPUTS, SessionOptions(runtime=runtime), title="tiny", runs=5
    )
    profile = profile_of(recording)

    assert profile.runtime == runtime
    assert profile.total_ms > 0
    assert sum(one.share for one in profile.by_type) == pytest.approx(1)
    assert any("Conv" in one.op_type for one in profile.by_type)
    assert len({span.run for span in recording.spans}) == 5


def test_one_slow_run_does_not_move_the_figures() -> None:
    """A node counts with its median over the runs."""
    recording = spans(
        (0, "a", "Conv", 10), (1, "a", "Conv", 900), (2, "a", "Conv", 12), (2, "b", "Add", 3)
    )
    profile = profile_of(recording)

    assert profile.by_type[0].ms == pytest.approx(0.012)
    # b took part in one run of three: in the median it takes no time
    assert profile.total_ms == pytest.approx(0.012)


def test_many_kinds_of_operators_are_summed_up() -> None:
    """Beyond what can be told apart, the rest is one entry, and nothing is lost."""
    recording = spans(*((0, f"n{i}", f"Op{i}", 1.0) for i in range(40)))
    profile = profile_of(recording)

    assert len(profile.by_type) == MAX_TYPES
    assert profile.by_type[-1].op_type == "others"
    assert sum(one.ms for one in profile.by_type) == pytest.approx(profile.total_ms)


def test_nothing_recorded_is_no_crash() -> None:
    """An empty recording is an empty profile and a valid trace."""
    empty = Recording("nothing", "onnxruntime", ())

    assert profile_of(empty).by_type == ()
    assert json.loads(to_trace([empty]))["traceEvents"]


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"{}",
        b"[1, null, []]",
        b'[{"name": "x_kernel_time"}]',
        b'[{"name": "x_kernel_time", "ts": "soon", "dur": 3, "args": {}}]',
        b'[{"name": 7, "ts": 1, "dur": 3}]',
    ],
)
def test_a_profile_of_another_version_is_read_as_far_as_it_goes(profile: bytes) -> None:
    """Fields that are missing or strange are left out, never a crash."""
    assert onnxruntime_profile.read_spans(profile) == ()


def test_a_kernel_without_its_operator_is_still_counted() -> None:
    """Time is time, also when nobody says of what."""
    profile = b'[{"name": "x_kernel_time", "ts": 1, "dur": 3}]'

    assert onnxruntime_profile.read_spans(profile) == (Span(0, "x", "unknown", 1, 3),)


def test_openvino_nodes_that_did_not_run_take_no_time() -> None:
    """Only what was executed counts, and what lacks fields is left out."""
    nodes = [
        SimpleNamespace(
            node_name="a",
            node_type="Convolution",
            exec_type="brgconv",
            status="Status.EXECUTED",
            real_time=timedelta(microseconds=5),
        ),
        SimpleNamespace(node_name="b", status="Status.NOT_RUN", real_time=timedelta()),
        SimpleNamespace(status="Status.EXECUTED"),
    ]

    assert list(openvino_profile.read_spans(nodes, 1, 10.0)) == [
        Span(1, "a", "Convolution", 10.0, 5.0, "brgconv")
    ]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_trace_is_one_that_viewers_open(tiny_onnx: Path, runtime: Runtime) -> None:
    """Valid trace events: complete events with times, inside their run, and named tracks."""
    session = SessionOptions(runtime=runtime)
    recordings = [record_artifact(tiny_onnx, INPUTS, session, title=t, runs=3) for t in "ab"]
    trace = json.loads(to_trace(recordings))

    assert trace["displayTimeUnit"] in {"ms", "ns"}
    events = trace["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X"}
    complete = [event for event in events if event["ph"] == "X"]
    assert all(isinstance(e["pid"], int) and isinstance(e["tid"], int) for e in complete)
    assert all(e["ts"] >= 0 and e["dur"] >= 0 and e["name"] for e in complete)
    named = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert named == {f"a ({runtime})", f"b ({runtime})"}
    for process in (1, 2):
        own = [event for event in complete if event["pid"] == process]
        runs = {e["args"]["run"]: e for e in own if e["cat"] == "run"}
        assert len(runs) == 3
        for event in own:
            run = runs[event["args"]["run"]]
            assert run["ts"] - 1e-6 <= event["ts"]
            assert event["ts"] + event["dur"] <= run["ts"] + run["dur"] + 1e-6


def test_what_has_no_profiler_is_refused(tmp_path: Path) -> None:
    """A plan for a GPU is not profiled on a processor, and the error says so."""
    with pytest.raises(BuildError) as caught:
        record_artifact(tmp_path / "x", INPUTS, title="x", kind=ArtifactKind.TENSORRT_PLAN)

    assert caught.value.code is BuildCode.MEASURE


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_that_is_none_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    """Whatever the runtime raises becomes one error with a code."""
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")

    with pytest.raises(BuildError) as caught:
        record_artifact(bad, INPUTS, SessionOptions(runtime=runtime), title="bad")

    assert caught.value.code is BuildCode.UNSUPPORTED_OP
