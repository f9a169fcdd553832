"""Running a finished plan where it was made, with the code that ships, if its GPU is there."""

import sys
from collections.abc import Callable
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.tensorrt.compiler import Ended
from stoker_builder.workers.documents import BuildJob, Software
from stoker_contract.document import Document
from stoker_contract.errors import ContractError
from stoker_contract.manifest import SessionOptions
from stoker_contract.names import Count, Detail, Milliseconds
from stoker_contract.target import ArtifactKind

PROVER: Final = (sys.executable, "-m", "stoker_builder.workers.proving_child")

Run = Callable[[bytes], Ended]
"""Gives a job to a proving process within the limits of the build, and waits for its end."""


class ProofJob(Document):
    """What the child is to do. Paths are absolute.

    Attributes:
        layers: tell how long the layers take, instead of answering.
    """

    artifact: str
    kind: ArtifactKind
    session: SessionOptions
    samples: str
    answers: str
    layers: bool = False


class Proof(Document):
    """What it did; ``no_gpu`` says why nothing could be tried, ``refused`` what went wrong.

    Attributes:
        operators: where the time of a run went, if that was asked and the runtime tells.
    """

    runs: Count = 0
    p50_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    operators: OperatorProfile | None = None
    no_gpu: Detail = ""
    refused: Detail = ""


def why_not_run(job: BuildJob, software: Software) -> str | None:
    """Why a plan is not run where it was made, or None where it can be."""
    wanted, here = job.target.gpu_sm, software.gpu_sm
    if here is None:
        return "no GPU is here"
    if wanted is not None and wanted != here:
        return f"the GPU here is SM{here}, and the plan is for SM{wanted}"
    if job.samples is None:
        return "no samples came with the job"
    return None


def prove(job: ProofJob, run: Run) -> Proof:
    """Have a process answer the samples.

    Args:
        job: the artifact and the samples.
        run: starts the process.

    Raises:
        BuildError: ``COMPILE``: it does not run where it has to; or what ``run`` raises.
    """
    ended = run(job.encode())
    try:
        proof = Proof.parse(ended.stdout)
    except ContractError:
        said = ended.stderr.decode(errors="replace").strip()[-400:]
        detail = f"the plan ended its process with {ended.returncode}: {said}"
        raise BuildError(BuildCode.COMPILE, detail, "use another precision") from None
    if proof.refused:
        detail = f"the plan does not run on the GPU that it was made on: {proof.refused}"
        raise BuildError(BuildCode.COMPILE, detail, "use another precision")
    return proof
