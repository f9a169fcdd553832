"""Where the time of a plan goes, looked at on its own GPU, beside its plain runs.

The profiler slows a run down and is one more thing that can fail, so it has a process of its
own, and whatever becomes of that, the plan is as good as it was.
"""

from stoker_builder.errors import BuildError
from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.workers.proving import ProofJob, Run, prove


def operators_of(job: ProofJob, run: Run) -> OperatorProfile | None:
    """The layers that take the time of a run; None where nobody can tell.

    Args:
        job: which was proved as it is.
        run: starts the process.
    """
    try:
        return prove(job.model_copy(update={"layers": True}), run).operators
    except BuildError:
        return None  # its plain runs are good, and those ship
