"""Who makes the plans of a build: this process, or a worker of the right class.

Both are asked alike, so the rest of a build does not know which it was.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.frames import read_frame
from stoker_builder.metrics import Outputs
from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.tensorrt.compiler import Compiled, compile_plan
from stoker_builder.tensorrt.settings import CompileSettings, ShapeRange
from stoker_builder.tensorrt.targets import PlanTarget, check_compilable
from stoker_builder.workers.classes import class_of
from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.documents import BuildJob, Evidence, JobOutcome, Software
from stoker_builder.workers.recording import is_worth_recording
from stoker_builder.workers.states import JobState
from stoker_contract.errors import ContractError
from stoker_contract.plan_header import read_plan_header, why_plan_unfit

_REPORT: Final = "look at the worker's log, and report it if it repeats"


@dataclass(frozen=True, slots=True)
class PlanWork:
    """A plan that is wanted.

    Attributes:
        onnx: the graph.
        plan: where to write it.
        samples: frames of inputs to answer, where the GPU is.
        timing_cache: what was timed here on this hardware; a worker has its own.
        profile: a shape range for each input that has free dimensions.
    """

    onnx: Path
    plan: Path
    target: PlanTarget
    samples: Path | None = None
    timing_cache: Path | None = None
    profile: Mapping[str, ShapeRange] = field(default_factory=dict)

    @property
    def settings(self) -> CompileSettings:
        """How it is compiled."""
        return self.target.settings.model_copy(update={"profile": dict(self.profile)})


@dataclass(frozen=True, slots=True)
class Standing:
    """How the making of a plan stands.

    Attributes:
        words: for people.
    """

    state: JobState
    words: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and what is known of it.

    Attributes:
        answers: what it answered to the samples, on its own GPU; empty where it did not run.
        software: of the worker that made it; None for this process.
        made_on: whose machine it was; empty for this one.
        recorded: it is faster as a CUDA graph, and ships so.
        operators: where the time of a plain run went, if that was seen.
    """

    compiled: Compiled
    answers: tuple[Outputs, ...] = ()
    software: Software | None = None
    made_on: str = ""
    recorded: bool = False
    operators: OperatorProfile | None = None


class BuildExecutor(Protocol):
    """What makes plans."""

    def submit(self, work: PlanWork) -> str:
        """Ask for a plan, and return a ticket.

        Raises:
            BuildError: it can not be asked for here.
        """

    def state(self, ticket: str) -> Standing:
        """How it stands; any final state has an outcome."""

    def outcome(self, ticket: str) -> Built:
        """The plan, when it is made.

        Raises:
            BuildError: it can not be made.
        """

    def withdraw(self, ticket: str) -> None:
        """It is not wanted here any more; saying so again changes nothing."""


class InProcess:
    """Makes plans here, each when it is asked for."""

    def __init__(self) -> None:
        self._works: list[PlanWork] = []

    def submit(self, work: PlanWork) -> str:
        """Ask for a plan. Raises ``NO_COMPILER`` for one that only a board can make."""
        check_compilable(work.target)
        self._works.append(work)
        return str(len(self._works) - 1)

    def state(self, ticket: str) -> Standing:
        """There is nothing to wait for."""
        del ticket
        return Standing(JobState.DONE)

    def outcome(self, ticket: str) -> Built:
        """Make the plan."""
        work = self._works[int(ticket)]
        made = compile_plan(work.onnx, work.plan, work.settings, timing_cache=work.timing_cache)
        return Built(made)

    def withdraw(self, ticket: str) -> None:
        """What was not asked for is not made."""


class Remote:
    """Has plans made by the workers of a build service."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client
        self._works: dict[str, PlanWork] = {}

    def submit(self, work: PlanWork) -> str:
        """Send the graph, and ask for a plan."""
        job = BuildJob(
            hardware_class=class_of(work.target.name),
            onnx=self._client.put(work.onnx),
            settings=work.settings,
            target=work.target.target,
            samples=None if work.samples is None else self._client.put(work.samples),
        )
        ticket = self._client.submit(job).id
        self._works[ticket] = work
        return ticket

    def state(self, ticket: str) -> Standing:
        """How it stands, and who is at it."""
        view = self._client.view(ticket)
        name = view.job.hardware_class
        if view.state is JobState.WAITING:
            seen = f"{view.workers} seen lately" if view.workers else "none seen"
            return Standing(view.state, f"waiting for a worker of class {name} ({seen})")
        if view.state is JobState.TAKEN:
            again = f", attempt {view.attempts}" if view.attempts > 1 else ""
            return Standing(view.state, f"{view.worker} compiles for {name}{again}")
        return Standing(view.state, f"compiled for {name} before" if view.from_cache else "")

    def outcome(self, ticket: str) -> Built:
        """Fetch the plan, and look at it as a device will."""
        work = self._works[ticket]
        outcome = self._client.view(ticket).outcome
        if outcome is None:
            raise BuildError(BuildCode.JOB_STATE, "the job was cancelled", "build again")
        if outcome.code is not None or outcome.plan is None or outcome.evidence is None:
            raise _refusal(outcome)
        self._client.get(outcome.plan, work.plan)
        compiled = _checked(work, outcome.evidence)
        worker = outcome.worker
        return Built(
            compiled,
            self._answers(work, outcome.evidence),
            None if worker is None else worker.software,
            "" if worker is None else worker.name,
            recorded=is_worth_recording(outcome.evidence),
            operators=outcome.evidence.operators,
        )

    def withdraw(self, ticket: str) -> None:
        """Let the worker stop, unless another build waits for the same plan."""
        if self._works.pop(ticket, None) is not None:
            self._client.withdraw(ticket)

    def _answers(self, work: PlanWork, evidence: Evidence) -> tuple[Outputs, ...]:
        if evidence.answers is None:
            return ()
        path = work.plan.with_suffix(".answers")
        self._client.get(evidence.answers, path)
        try:
            with path.open("rb") as stream:
                return tuple(iter(lambda: read_frame(stream), None))
        except (ValueError, TypeError, KeyError) as error:
            detail = f"the answers of the plan for {work.target.name} can not be read: {error}"
            raise BuildError(BuildCode.BUILD_SERVICE, detail, _REPORT) from None


@contextmanager
def withdrawn_unless_done(
    executor: BuildExecutor, tickets: Mapping[str, str | BuildError]
) -> Iterator[None]:
    """Withdraw what was asked for when the block ends early, by an error or by Ctrl-C."""
    try:
        yield
    except BaseException:
        for ticket in tickets.values():
            if isinstance(ticket, str):
                with suppress(BuildError):  # the first error is the one to tell
                    executor.withdraw(ticket)
        raise


def _refusal(outcome: JobOutcome) -> BuildError:
    known = set(BuildCode)
    code = BuildCode(outcome.code) if outcome.code in known else BuildCode.BUILD_SERVICE
    where = f"{outcome.worker.name}: " if outcome.worker is not None else ""
    return BuildError(code, f"{where}{outcome.detail}", outcome.hint or _REPORT)


def _checked(work: PlanWork, evidence: Evidence) -> Compiled:
    settings = work.settings
    try:
        header = read_plan_header(work.plan.read_bytes())
    except ContractError as error:
        raise BuildError(BuildCode.COMPILE, error.detail, _REPORT) from None
    unfit = why_plan_unfit(
        header,
        settings.runtime,
        version=work.target.target.tensorrt,
        gpu_sm=settings.compute_capability,
    )
    if unfit is not None:
        raise BuildError(BuildCode.COMPILE, unfit, _REPORT)
    return Compiled(
        path=work.plan,
        header=header,
        io=evidence.io,
        layers=evidence.layers,
        seconds=evidence.compile_s,
        validity=evidence.validity,
        warnings=evidence.warnings,
        inspected=evidence.inspected,
    )
