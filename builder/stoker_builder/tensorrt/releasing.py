"""Plans for a release, compiled here or by a worker that has the board.

What a GPU answers is known where the worker that compiled a plan has run it. Else the graph that
the plan was compiled from is answered by ONNX Runtime instead, and the manifest says so; see
docs/adr for what that allows to ship. The device's own golden gate has the last word.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx

from stoker_builder.accuracy.certify import judge
from stoker_builder.accuracy.evaluate import Answers, answer_all, score_all
from stoker_builder.accuracy.golden import make_golden, ways
from stoker_builder.accuracy.risk import Risk
from stoker_builder.bench import Bench
from stoker_builder.candidates.candidate import REFERENCE, Candidate
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import FP32, RECIPES
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.engines import EngineRunner
from stoker_builder.kernels.places import native
from stoker_builder.progress import Progress
from stoker_builder.report.document import TargetProfile
from stoker_builder.rows import Mark, Row
from stoker_builder.tensorrt.asked import asked_for
from stoker_builder.tensorrt.dynamic import Sizes, bounded, opened, proved
from stoker_builder.tensorrt.graphs import half, parsable
from stoker_builder.tensorrt.inside import inside
from stoker_builder.tensorrt.targets import PlanTarget
from stoker_builder.workers.choosing import Executors
from stoker_builder.workers.executor import Built, PlanWork, withdrawn_unless_done
from stoker_builder.workers.samples import write_samples
from stoker_builder.workers.waiting import await_built
from stoker_contract.manifest import Artifact, Fusion, Precision, SessionOptions
from stoker_contract.target import ArtifactKind, Runtime, Target

INT8: Final = "int8-explicit"
NOT_TIMED: Final = "not timed: there is no such GPU here, and INT8 has to be measured as faster"
NOT_IN_TURNS: Final = "not timed in turns with FP16, and INT8 has to be measured as faster"
_STOPS: Final = frozenset(
    {
        BuildCode.TENSORRT_GRAPH,
        BuildCode.COMPILE,
        BuildCode.QUANTISE,
        BuildCode.EXHAUSTED,
        BuildCode.JOB_POISONED,
    }
)


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One plan that ships, ready for the manifest."""

    artifact: Artifact
    path: Path
    golden: bytes


@dataclass(frozen=True, slots=True)
class PlanTable:
    """One target: its rows, the plan that ships, and what was seen inside; None when none can."""

    rows: tuple[Row, ...]
    entry: PlanEntry | None
    profile: TargetProfile | None = None


class PlanMaker:
    """Makes the plans of a build. Each graph is written and answered once, for all targets."""

    def __init__(self, bench: Bench, executors: Executors, progress: Progress) -> None:
        self._bench = bench
        self._executors = executors
        self._progress = progress
        self._graphs: dict[str, Path | BuildError] = {}
        self._ranges = bench.request.plan_shapes
        self._seen: dict[str, Mapping[str, Sizes]] = {}
        self._answers: dict[str, Answers] = {}
        self._samples: Path | None = None

    def table(self, target: PlanTarget, fallback: Sequence[str]) -> PlanTable:
        """Have every candidate for a target compiled, judge it, and select.

        Args:
            target: the GPU.
            fallback: digests of the release's portable artifacts.

        Raises:
            BuildError: ``NO_COMPILER``, ``NO_WORKER`` or ``BUILD_SERVICE``.
        """
        candidates = self._candidates(target)
        rows, made = [], {}
        with self._progress.stage(f"compile for {target.name}", len(candidates)) as stage:
            for candidate, built in self._built(target, candidates):
                rows.append(self._row(target, candidate, built))
                if isinstance(built, Built):
                    made[candidate.name] = built
                stage.advance()
        winner = _winner(rows, skip_gates=self._bench.request.unsafe_skip_gates)
        if winner is None:
            self._progress.note(f"{target.name}: no plan ships; its devices take the fallback")
            return PlanTable(tuple(rows), None)
        shipped = replace(winner, rank=1, why="")
        rows = [shipped if row.name == winner.name else _passed_over(row, winner) for row in rows]
        entry = self._entry(target, shipped, made[winner.name], tuple(fallback))
        told = {name: built.operators for name, built in made.items()}
        reference = next(one.name for one in candidates if one.precision is Precision.FP32)
        profile = inside(target.name, told, reference=reference, shipped=shipped.name)
        return PlanTable(tuple(rows), entry, profile)

    def _built(
        self, target: PlanTarget, candidates: Sequence[Candidate]
    ) -> Iterator[tuple[Candidate, Built | BuildError]]:
        """Ask for all plans at once, so that several workers can be at it; then one by one."""
        executor = self._executors.of(target)
        tickets: dict[str, str | BuildError] = {}
        with withdrawn_unless_done(executor, tickets):
            for candidate in candidates:
                tickets[candidate.name] = self._asked(target, candidate)
            for candidate in candidates:
                ticket = tickets[candidate.name]
                yield (
                    candidate,
                    ticket if isinstance(ticket, BuildError) else self._made(target, ticket),
                )

    def _asked(self, target: PlanTarget, candidate: Candidate) -> str | BuildError:
        try:
            graph = self._opened(candidate)
        except BuildError as error:
            return _excused(error)
        plan = self._bench.scratch / f"{candidate.name}.{target.name}.plan"
        if self._executors.is_remote(target) and self._samples is None:
            path = self._bench.scratch / "samples.frames"
            self._samples = write_samples(self._bench.split.certification, path)
        timing = self._bench.cache.timing(target.name)
        work = PlanWork(graph, plan, target, self._samples, timing, dict(self._ranges))
        return self._executors.of(target).submit(work)

    def _made(self, target: PlanTarget, ticket: str) -> Built | BuildError:
        try:
            return await_built(
                self._executors.of(target),
                ticket,
                self._progress,
                wait_s=self._executors.wait_s,
                clock=time.monotonic,
                pause=time.sleep,
            )
        except BuildError as error:
            return _excused(error)

    def _candidates(self, target: PlanTarget) -> tuple[Candidate, ...]:
        recipes = (FP32, FP32, INT8) if self._bench.searched else (FP32,)
        precisions = ("fp16", FP32, "fp16") if self._bench.searched else (FP32,)
        return tuple(
            Candidate(
                recipe,
                SessionOptions.model_validate(
                    {"runtime": target.runtime, "float_precision": precision}
                ),
            )
            for recipe, precision in zip(recipes, precisions, strict=True)
        )

    def _row(self, target: PlanTarget, candidate: Candidate, built: Built | BuildError) -> Row:
        if isinstance(built, BuildError):
            return Row(target.name, candidate, None, why=built.detail)
        plan = built.compiled.path
        row = Row(
            target.name,
            candidate,
            plan,
            size_bytes=plan.stat().st_size,
            fusion=None if candidate.is_float else self._fusion(candidate),
            layers=built.compiled.inspected,
        )
        judged = judge(
            self._bench.reference,
            self._scored(built) if built.answers else self._answered(candidate),
            self._bench.metric,
            self._bench.request,
            # FP16 and INT8 are judged side by side, neither of them chosen for its luck
            risk=Risk((1 - self._bench.request.confidence) / 2, 1),
            certified_on=_certified_on(target, built),
        )
        why = judged.why
        if judged.mark is Mark.PASS and candidate.precision is Precision.INT8:
            why = NOT_IN_TURNS if built.answers else NOT_TIMED
        return replace(row, mark=judged.mark, accuracy=judged.accuracy, why=why)

    def _scored(self, built: Built) -> Answers:
        """The answers that the plan itself gave, on its own GPU."""
        bench = self._bench
        reference = EngineRunner(bench.files[FP32], REFERENCE.session)
        return score_all(built.answers, reference, bench.split.certification, bench.metric)

    def _graph(self, candidate: Candidate) -> Path:
        """The ONNX file that a plan is compiled from.

        Raises:
            BuildError: ``TENSORRT_GRAPH`` or ``QUANTISE``.
        """
        if candidate.name not in self._graphs:
            self._graphs[candidate.name] = self._written(candidate)
        found = self._graphs[candidate.name]
        if isinstance(found, BuildError):
            raise found
        return found

    def _opened(self, candidate: Candidate) -> Path:
        """The same graph for all shapes that were asked for, once that is proved.

        Raises:
            BuildError: as :meth:`_graph`.
        """
        graph = self._graph(candidate)
        if not self._ranges:
            return graph
        path = self._bench.scratch / f"{candidate.name}.opened.onnx"
        if candidate.name not in self._seen:
            onnx.save(opened(onnx.load(graph), self._ranges), path)
            self._seen[candidate.name] = proved(path, graph, self._ranges, self._bench.example)
        return path

    def _fusion(self, candidate: Candidate) -> Fusion:
        """How much of a quantised graph may run in integers; its kernels are elsewhere."""
        found = asked_for(onnx.load(self._graph(candidate))).fusion()
        return found.model_copy(update={"basis": "graph"})

    def _written(self, candidate: Candidate) -> Path | BuildError:
        bench = self._bench
        path = bench.scratch / f"{candidate.name}.onnx"
        try:
            source = bench.source.path
            if candidate.recipe == INT8:
                quantiser = Quantiser(source, bench.split.calibration, bench.scratch)
                source = quantiser.make(RECIPES[INT8])
            model = parsable(onnx.load(source))
            onnx.save(half(model) if candidate.session.float_precision == "fp16" else model, path)
        except BuildError as error:
            return error
        return path

    def _answered(self, candidate: Candidate) -> Answers:
        if candidate.name not in self._answers:
            bench = self._bench
            runners = {
                REFERENCE.name: EngineRunner(bench.files[FP32], REFERENCE.session),
                candidate.name: EngineRunner(self._graph(candidate), SessionOptions()),
            }
            title = f"answer the certification samples, {candidate.name}"
            with self._progress.stage(title, len(bench.split.certification)) as stage:
                self._answers |= answer_all(
                    runners, bench.split.certification, bench.metric, advance=stage.advance
                )
        return self._answers[candidate.name]

    def _entry(
        self, target: PlanTarget, row: Row, built: Built, fallback: tuple[str, ...]
    ) -> PlanEntry:
        bench, candidate, made = self._bench, row.candidate, built.compiled
        graph = self._graph(candidate)
        golden = make_golden(
            [EngineRunner(graph, session) for session in ways(SessionOptions())],
            bench.split.certification,
            bench.reference,
            # FP32 on a GPU may be TF32, whose fractions are as short as those of FP16
            precision=Precision.FP16 if candidate.is_float else Precision.INT8,
            classifies=bench.classifies,
        )
        data = golden.encode()
        plan = made.path.read_bytes()
        folder = f"{bench.request.name}/{bench.request.version}"
        name = f"{candidate.name}.{target.name}"
        artifact = Artifact(
            path=f"{folder}/{name}.plan",
            digest=hashlib.sha256(plan).hexdigest(),
            length=len(plan),
            kind=ArtifactKind.TENSORRT_PLAN,
            precision=row.precision,
            recipe=RECIPES[INT8].summary if candidate.recipe == INT8 else "",
            target=_target(target, built),
            io=bounded(made.io, self._seen[candidate.name]) if self._ranges else made.io,
            session=candidate.session.model_copy(update={"cuda_graph": built.recorded}),
            golden=golden.describe(f"{folder}/{name}.golden.npz", data),
            accuracy=row.accuracy,
            fusion=row.fusion,
            fallback=fallback,
        )
        return PlanEntry(artifact, made.path, data)


def _excused(error: BuildError) -> BuildError:
    """The error, if the other candidates go on without this one.

    Raises:
        BuildError: the same, if it is a reason to stop.
    """
    if error.code not in _STOPS:
        raise error
    return error


def _certified_on(target: PlanTarget, built: Built) -> str:
    if not built.answers:
        where = (
            f"it was not run on {built.made_on}" if built.made_on else f"no {target.name} was here"
        )
        return f"ONNX Runtime, {native().name}, same graph; {where}"[:256]
    return f"{target.name}, the plan itself, on {built.made_on}"[:256]


def _target(target: PlanTarget, built: Built) -> Target:
    """What a device has to be. The board that compiled knows better than a table."""
    known: dict[str, str | None] = {"tensorrt": built.compiled.header.version}
    if built.software is not None and target.runtime is Runtime.TENSORRT:
        known |= {"l4t": built.software.l4t, "cuda": built.software.cuda}
    return target.target.model_copy(update={k: v for k, v in known.items() if v is not None})


def _winner(rows: Sequence[Row], *, skip_gates: bool) -> Row | None:
    """FP16 before FP32, where its accuracy holds; INT8 only where nobody asks."""
    made = [row for row in rows if row.path is not None]
    if skip_gates:
        quantised = [row for row in made if row.precision is Precision.INT8]
        return next(iter(quantised or made), None)
    return next(
        (row for row in made if row.mark is Mark.PASS and row.precision is not Precision.INT8),
        None,
    )


def _passed_over(row: Row, winner: Row) -> Row:
    return row if row.why else replace(row, why=f"{winner.name} comes first")
