"""More than one core: how artifacts use them is measured, and devices do as they are told."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from stoker_builder import shipped
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.latency.concurrency import Goal, Use, best_use, using
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.report.words import captions
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Runtime
from stoker_engine import onnxruntime_backend, openvino_backend
from support.tiny_build import request_for


def use(threads: int, parallel: int, p50_ms: float, per_second: float) -> Use:
    """One way to use the cores."""
    return Use(threads, parallel, p50_ms=p50_ms, p99_ms=p50_ms, per_second=per_second)


@pytest.mark.parametrize(
    ("goal", "uses", "chosen"),
    [
        ("latency", [use(1, 1, 10.0, 100), use(2, 1, 6.0, 166), use(1, 2, 10.0, 200)], (2, 1)),
        ("throughput", [use(1, 1, 10.0, 100), use(2, 1, 6.0, 166), use(1, 2, 10.0, 200)], (1, 2)),
        # a thread that brings nothing is left to others
        ("latency", [use(1, 1, 10.0, 100), use(2, 1, 9.9, 101)], (1, 1)),
        # of equal throughput, the answers that come sooner
        ("throughput", [use(2, 1, 5.0, 199), use(1, 2, 10.0, 200)], (2, 1)),
    ],
)
def test_the_goal_decides(goal: Goal, uses: Sequence[Use], chosen: tuple[int, int]) -> None:
    """One caller wants his answer soon, many want all of theirs."""
    best = best_use(uses, goal)

    assert (best.threads, best.parallel) == chosen


@pytest.mark.parametrize(
    ("runtime", "threads", "parallel", "spins"),
    [
        (Runtime.ONNXRUNTIME, 2, 1, True),
        (None, 4, 1, True),
        (Runtime.ONNXRUNTIME, 1, 1, False),
        (Runtime.ONNXRUNTIME, 2, 2, False),
        (Runtime.OPENVINO, 2, 1, False),
    ],
)
def test_threads_that_are_alone_do_not_sleep_between_operators(
    *, runtime: Runtime | None, threads: int, parallel: int, spins: bool
) -> None:
    """Waking up takes longer than a small operator; beside others, spinning is in their way."""
    session = using(SessionOptions(runtime=runtime), threads, parallel)

    assert (session.intra_op_threads, session.parallel_runs) == (threads, parallel)
    assert session.allow_spinning == spins


def test_the_manifest_says_how_the_cores_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was measured to be best, of every artifact."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(
        shipped, "measure_concurrency", lambda *_, **__: (use(1, 1, 3, 333), use(2, 2, 2, 900))
    )
    request = request_for(
        tmp_path / "release",
        targets=("x86-64-v3",),
        precision="fp32",
        cores=4,
        goal="throughput",
    )

    sessions = [artifact.session for artifact in build(request, Silence()).manifest.artifacts]

    assert sessions
    assert {(one.intra_op_threads, one.parallel_runs) for one in sessions} == {(2, 2)}


@pytest.mark.parametrize(("goal", "threads"), [("latency", 4), ("throughput", 1)])
def test_candidates_are_compared_as_they_will_run(tmp_path: Path, goal: Goal, threads: int) -> None:
    """With all cores where one caller waits; with one each where many do."""
    assert request_for(tmp_path, cores=4, goal=goal).timed_threads == threads


def test_the_report_says_with_how_many_threads(tmp_path: Path) -> None:
    """A figure without it says nothing."""
    request = request_for(tmp_path / "release", targets=("x86-64-v3",), cores=2)

    report = build(request, Silence()).report

    assert report.conditions.threads == 2
    assert any("2 threads" in line for line in captions(report))


def test_one_core_is_what_a_device_gives_unless_told(tmp_path: Path) -> None:
    """Inference is not all that a device does."""
    request = request_for(tmp_path / "release", targets=("x86-64-v3",), precision="fp32")

    for artifact in build(request, Silence()).manifest.artifacts:
        assert (artifact.session.intra_op_threads, artifact.session.parallel_runs) == (1, 1)


def test_cores_that_are_not_here_can_not_be_measured(tmp_path: Path) -> None:
    """It is refused before anything slow begins."""
    with pytest.raises(BuildError, match="this machine has") as refused:
        request_for(tmp_path, cores=4096).check()

    assert refused.value.code is BuildCode.BAD_REQUEST


def test_cores_that_this_process_may_not_use_can_not_be_measured(tmp_path: Path) -> None:
    """In a container, say: with one core, a run of two threads would be one of one thread."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        with pytest.raises(BuildError, match="has 1 for this process"):
            request_for(tmp_path, cores=2).check()
    finally:
        os.sched_setaffinity(0, mine)


def test_a_smaller_device_starts_no_more_threads_than_it_has_cores() -> None:
    """They would only take turns."""
    cores = len(os.sched_getaffinity(0))
    wanted = SessionOptions(intra_op_threads=64, parallel_runs=2)

    assert onnxruntime_backend.settings_of(wanted).intra_op_num_threads == cores
    wanted = wanted.model_copy(update={"runtime": Runtime.OPENVINO})
    assert openvino_backend.settings_of(wanted)["INFERENCE_NUM_THREADS"] == cores
