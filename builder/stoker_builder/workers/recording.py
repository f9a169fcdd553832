"""Whether a plan is worth recording as a CUDA graph: tried on its own GPU, beside its plain runs.

A graph saves the time between kernels, which is most of a small network's and nothing of a large
one's, and takes memory. So it is measured, and taken only where it is faster by more than chance
and changes no answer. A device's own latency gate compares again.
"""

from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildError
from stoker_builder.workers.documents import Evidence
from stoker_builder.workers.proving import ProofJob, Run, prove
from stoker_contract.manifest import EngineIO

_WORTH: Final = 0.95
"""Of the plain runs' median: below it the gain is no chance."""


def recorded_p50_ms(job: ProofJob, io: EngineIO, run: Run) -> float | None:
    """The median run of a plan that is recorded and replayed; None where that is no choice.

    Args:
        job: which was proved as it is, with its answers where it says.
        io: of the plan; only fixed shapes can be recorded.
        run: starts the process.
    """
    if any(dim < 0 for spec in io.inputs for dim in spec.shape):
        return None
    answers = Path(f"{job.answers}.recorded")
    session = job.session.model_copy(update={"cuda_graph": True})
    wanted = job.model_copy(update={"session": session, "answers": str(answers)})
    try:
        proof = prove(wanted, run)
    except BuildError:
        return None  # its plain runs are good, and those ship
    if proof.no_gpu or answers.read_bytes() != Path(job.answers).read_bytes():
        return None
    return proof.p50_ms


def is_worth_recording(evidence: Evidence) -> bool:
    """Whether the plan ships as a recording."""
    plain, recorded = evidence.p50_ms, evidence.recorded_p50_ms
    return plain is not None and recorded is not None and recorded <= _WORTH * plain
