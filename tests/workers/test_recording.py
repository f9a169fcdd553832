"""A CUDA graph is a measured option: off unless it is faster, and its answers are the same."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from stoker_builder.tensorrt.compiler import Ended
from stoker_builder.workers.documents import Evidence
from stoker_builder.workers.proving import Proof, ProofJob
from stoker_builder.workers.recording import is_worth_recording, recorded_p50_ms
from stoker_contract.manifest import DType, EngineIO, SessionOptions, TensorSpec
from stoker_contract.target import ArtifactKind, Runtime

PLAIN = b"the answers"


def io(batch: int = 1) -> EngineIO:
    """Tensors of a plan."""
    specs = (TensorSpec(name="x", dtype=DType.FP32, shape=(batch, 4)),)
    return EngineIO(inputs=specs, outputs=specs)


def proved(folder: Path) -> ProofJob:
    """A plan that has answered the samples as it is."""
    answers = folder / "answers"
    answers.write_bytes(PLAIN)
    return ProofJob(
        artifact=str(folder / "x.plan"),
        kind=ArtifactKind.TENSORRT_PLAN,
        session=SessionOptions(runtime=Runtime.TENSORRT),
        samples=str(folder / "samples"),
        answers=str(answers),
    )


def prover(proof: Proof, answers: bytes) -> Callable[[bytes], Ended]:
    """A proving process that ends so."""

    def run(given: bytes) -> Ended:
        job = ProofJob.parse(given)
        assert job.session.cuda_graph
        Path(job.answers).write_bytes(answers)
        return CompletedProcess([], 0, proof.encode(), b"")

    return run


@pytest.mark.parametrize(
    ("proof", "answers", "found"),
    [
        (Proof(runs=5, p50_ms=2.0, p99_ms=3.0), PLAIN, 2.0),
        (Proof(runs=5, p50_ms=2.0, p99_ms=3.0), b"others", None),
        (Proof(refused="RUN_ERROR: a stream that is captured can not be waited for"), b"", None),
        (Proof(no_gpu="NO_GPU: gone"), b"", None),
    ],
    ids=["same", "other-answers", "not-recordable", "gpu-gone"],
)
def test_a_recording_counts_only_with_the_same_answers(
    tmp_path: Path, proof: Proof, answers: bytes, found: float | None
) -> None:
    """Whatever else happens, the plain plan is as good as it was."""
    job = proved(tmp_path)

    assert recorded_p50_ms(job, io(), prover(proof, answers)) == found
    assert Path(job.answers).read_bytes() == PLAIN


def test_a_plan_for_more_shapes_than_one_is_not_recorded(tmp_path: Path) -> None:
    """A recording has the addresses and sizes of one; no process is even started."""

    def run(given: bytes) -> Ended:
        raise AssertionError(given)

    assert recorded_p50_ms(proved(tmp_path), io(batch=-1), run) is None


@pytest.mark.parametrize(
    ("plain", "recorded", "worth"),
    [
        (2.0, 1.0, True),
        (2.0, 1.96, False),
        (2.0, 3.0, False),
        (2.0, None, False),
        (None, None, False),
    ],
)
def test_it_is_off_unless_it_is_faster(
    plain: float | None, recorded: float | None, worth: object
) -> None:
    """By more than chance: it takes memory as well."""
    evidence = Evidence(version="10.3.0", io=io(), p50_ms=plain, recorded_p50_ms=recorded)

    assert is_worth_recording(evidence) is worth
