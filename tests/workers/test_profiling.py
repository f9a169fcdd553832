"""A worker looks where the time of a plan goes; whatever becomes of that, the plan ships."""

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, run

import numpy as np
import onnx
import pytest

from stoker_builder.frames import write_frame
from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.tensorrt.compiler import Ended
from stoker_builder.tensorrt.inside import inside
from stoker_builder.workers.profiling import operators_of
from stoker_builder.workers.proving import PROVER, Proof, ProofJob
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from support.small_cnn import small_cnn
from support.stand_in_prover import OPERATORS


def proved(folder: Path) -> ProofJob:
    """A plan that has answered its samples."""
    return ProofJob(
        artifact=str(folder / "x.plan"),
        kind=ArtifactKind.TENSORRT_PLAN,
        session=SessionOptions(runtime=Runtime.TENSORRT),
        samples=str(folder / "samples"),
        answers=str(folder / "answers"),
    )


def prover(proof: Proof) -> Callable[[bytes], Ended]:
    """A process that was asked for the layers, and ends so."""

    def end(given: bytes) -> Ended:
        assert ProofJob.parse(given).layers
        return CompletedProcess([], 0, proof.encode(), b"")

    return end


@pytest.mark.parametrize(
    ("proof", "found"),
    [
        (Proof(operators=OPERATORS), OPERATORS),
        (Proof(), None),
        (Proof(refused="RUN_ERROR: TensorRT did not run the engine"), None),
        (Proof(no_gpu="NO_GPU: gone"), None),
    ],
    ids=["told", "silent", "refused", "gpu-gone"],
)
def test_what_the_library_says_is_evidence(
    tmp_path: Path, proof: Proof, found: OperatorProfile | None
) -> None:
    """And nothing that it does not say is a reason to refuse a plan."""
    assert operators_of(proved(tmp_path), prover(proof)) == found


def test_a_profiler_that_crashes_costs_only_the_profile(tmp_path: Path) -> None:
    """It has a process of its own, which ends without a word."""

    def crash(given: bytes) -> Ended:
        command = (sys.executable, "-c", "import os; os.abort()")
        return run(command, input=given, capture_output=True, check=False)

    assert operators_of(proved(tmp_path), crash) is None


def test_only_a_plan_tells_its_layers(tmp_path: Path) -> None:
    """The program of the worker, with a graph for ONNX Runtime in place of a plan."""
    onnx.save(small_cnn(), tmp_path / "x.onnx")
    with (tmp_path / "samples").open("wb") as stream:
        write_frame(stream, {"x": np.zeros((1, 3, 32, 32), np.float32)})
    graph = {
        "artifact": str(tmp_path / "x.onnx"),
        "kind": ArtifactKind.ONNX,
        "session": SessionOptions(),
        "layers": True,
    }
    job = proved(tmp_path).model_copy(update=graph)

    ended = run(PROVER, input=job.encode(), capture_output=True, check=False)

    assert Proof.parse(ended.stdout) == Proof(), ended.stderr


def test_the_report_shows_what_ships_beside_fp32() -> None:
    """As for artifacts of a processor; FP32 that ships is shown once."""
    made = {"fp32-tensorrt": OPERATORS, "fp16-tensorrt": OPERATORS}

    both = inside("orin", made, reference="fp32-tensorrt", shipped="fp16-tensorrt")
    alone = inside("orin", made, reference="fp32-tensorrt", shipped="fp32-tensorrt")

    assert both is not None
    assert alone is not None
    titles = [one.title for one in (both.before, both.after, alone.before) if one is not None]
    assert titles == ["fp32-tensorrt", "fp16-tensorrt", "fp32-tensorrt"]
    assert alone.after is None


def test_a_plan_that_nobody_ran_has_no_profile() -> None:
    """What another candidate took says nothing of the one that ships."""
    made = {"fp32-tensorrt": OPERATORS, "fp16-tensorrt": None}

    assert inside("orin", made, reference="fp32-tensorrt", shipped="fp16-tensorrt") is None
