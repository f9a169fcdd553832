"""Running what was made with the code that ships, where its GPU is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import read_frame, write_frame
from stoker_builder.tensorrt.compiler import Ended
from stoker_builder.workers.proving import PROVER, ProofJob, prove, why_not_run
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from support.build_jobs import blob, job, worker
from support.plans import plan
from support.small_cnn import small_cnn


def run(given: bytes, command: tuple[str, ...] = PROVER) -> Ended:
    return subprocess.run(command, input=given, capture_output=True, check=False)


def proof_job(folder: Path, artifact: Path) -> ProofJob:
    with (folder / "samples").open("wb") as stream:
        for value in range(5):
            write_frame(stream, {"x": np.full((1, 3, 32, 32), value, np.float32)})
    return ProofJob(
        artifact=str(artifact),
        kind=ArtifactKind.ONNX,
        session=SessionOptions(),
        samples=str(folder / "samples"),
        answers=str(folder / "answers"),
    )


def test_every_sample_is_answered_and_timed(tmp_path: Path) -> None:
    """An ONNX file stands in for a plan, which no GPU is here for: the way is the same."""
    onnx.save(small_cnn(), tmp_path / "x.onnx")

    proof = prove(proof_job(tmp_path, tmp_path / "x.onnx"), run)

    with (tmp_path / "answers").open("rb") as stream:
        answers = [frame["scores"] for frame in iter(lambda: read_frame(stream), None)]
    assert proof.runs == len(answers) == 5
    assert all(answer.shape == (1, 10) for answer in answers)
    assert proof.p50_ms is not None
    assert proof.p99_ms is not None
    assert 0 < proof.p50_ms <= proof.p99_ms


def test_a_plan_that_does_not_run_is_not_certified(tmp_path: Path) -> None:
    """The engine's own words, as an answer."""
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(BuildError, match="does not run on the GPU") as error:
        prove(proof_job(tmp_path, tmp_path / "x.onnx"), run)
    assert error.value.code is BuildCode.COMPILE


def test_a_plan_that_crashes_is_not_certified(tmp_path: Path) -> None:
    """Native code ends its process without a word, and that is a word."""

    def crash(given: bytes) -> Ended:
        return run(given, (sys.executable, "-c", "import os; os.abort()"))

    with pytest.raises(BuildError, match="ended its process with -6") as error:
        prove(proof_job(tmp_path, tmp_path / "x.onnx"), crash)
    assert error.value.code is BuildCode.COMPILE


def test_why_a_plan_did_not_run_is_said() -> None:
    """Only its own GPU can tell; without samples there is nothing to ask it."""
    sampled = job(samples=blob(b"samples"))
    assert why_not_run(sampled, worker().software) == "no GPU is here"
    other = worker(gpu_sm="86").software
    assert why_not_run(sampled, other) == "the GPU here is SM86, and the plan is for SM87"
    right = worker(gpu_sm="87").software
    assert why_not_run(job(), right) == "no samples came with the job"
    assert why_not_run(sampled, right) is None


def test_a_board_whose_gpu_can_not_be_reached_is_said_to_have_run_nothing(tmp_path: Path) -> None:
    """A driver that is missing speaks against the machine, not against the plan."""
    (tmp_path / "x.plan").write_bytes(plan(b"body"))
    wanted = proof_job(tmp_path, tmp_path / "x.plan").model_copy(
        update={
            "kind": ArtifactKind.TENSORRT_PLAN,
            "session": SessionOptions(runtime=Runtime.TENSORRT),
        }
    )
    proof = prove(wanted, run)
    if not proof.no_gpu:
        pytest.skip("there is a GPU here")
    assert "NO_GPU" in proof.no_gpu
    assert proof.runs == 0
