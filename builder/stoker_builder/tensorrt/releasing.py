"""Plans for a release, compiled where their GPU is not.

What a GPU would answer and how fast can not be known here. The graph that a plan was compiled
from is answered by ONNX Runtime instead, and the manifest says so; see docs/adr for what that
allows to ship. The device's own golden gate has the last word.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx

from stoker_builder.accuracy.certify import judge
from stoker_builder.accuracy.evaluate import Answers, answer_all
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
from stoker_builder.rows import Mark, Row
from stoker_builder.tensorrt.compiler import Compiled, compile_plan
from stoker_builder.tensorrt.graphs import half, parsable
from stoker_builder.tensorrt.targets import PlanTarget, check_compilable
from stoker_contract.manifest import Artifact, Precision, SessionOptions
from stoker_contract.target import ArtifactKind

INT8: Final = "int8-explicit"
NOT_TIMED: Final = "not timed: there is no such GPU here, and INT8 has to be measured as faster"
_STOPS: Final = frozenset({BuildCode.TENSORRT_GRAPH, BuildCode.COMPILE, BuildCode.QUANTISE})


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One plan that ships, ready for the manifest."""

    artifact: Artifact
    path: Path
    golden: bytes


@dataclass(frozen=True, slots=True)
class PlanTable:
    """One target: its rows, and the plan that ships; None when none can."""

    rows: tuple[Row, ...]
    entry: PlanEntry | None


class PlanMaker:
    """Makes the plans of a build. Each graph is written and answered once, for all targets."""

    def __init__(self, bench: Bench, progress: Progress) -> None:
        self._bench = bench
        self._progress = progress
        self._graphs: dict[str, Path | BuildError] = {}
        self._answers: dict[str, Answers] = {}

    def table(self, target: PlanTarget, fallback: Sequence[str]) -> PlanTable:
        """Compile every candidate for a target, judge it, and select.

        Args:
            target: the GPU.
            fallback: digests of the release's portable artifacts.

        Raises:
            BuildError: ``NO_COMPILER``.
        """
        check_compilable(target)
        candidates = self._candidates(target)
        rows, compiled = [], {}
        with self._progress.stage(f"compile for {target.name}", len(candidates)) as stage:
            for candidate in candidates:
                row, made = self._row(target, candidate)
                rows.append(row)
                if made is not None:
                    compiled[candidate.name] = made
                stage.advance()
        winner = _winner(rows, skip_gates=self._bench.request.unsafe_skip_gates)
        if winner is None:
            self._progress.note(f"{target.name}: no plan ships; its devices take the fallback")
            return PlanTable(tuple(rows), None)
        shipped = replace(winner, rank=1, why="")
        rows = [shipped if row.name == winner.name else _passed_over(row, winner) for row in rows]
        entry = self._entry(target, shipped, compiled[winner.name], tuple(fallback))
        return PlanTable(tuple(rows), entry)

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

    def _row(self, target: PlanTarget, candidate: Candidate) -> tuple[Row, Compiled | None]:
        plan = self._bench.scratch / f"{candidate.name}.{target.name}.plan"
        try:
            made = compile_plan(self._graph(candidate), plan, target.settings)
        except BuildError as error:
            if error.code not in _STOPS:
                raise
            return Row(target.name, candidate, None, why=error.detail), None
        row = Row(target.name, candidate, plan, size_bytes=plan.stat().st_size)
        judged = judge(
            self._bench.reference,
            self._answered(candidate),
            self._bench.metric,
            self._bench.request,
            # FP16 and INT8 are judged side by side, neither of them chosen for its luck
            risk=Risk((1 - self._bench.request.confidence) / 2, 1),
            certified_on=f"ONNX Runtime, {native().name}, same graph; no {target.name} was here",
        )
        why = judged.why
        if judged.mark is Mark.PASS and candidate.precision is Precision.INT8:
            why = NOT_TIMED
        return replace(row, mark=judged.mark, accuracy=judged.accuracy, why=why), made

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
        self, target: PlanTarget, row: Row, made: Compiled, fallback: tuple[str, ...]
    ) -> PlanEntry:
        bench, candidate = self._bench, row.candidate
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
            target=target.target.model_copy(update={"tensorrt": made.header.version}),
            io=made.io,
            session=candidate.session,
            golden=golden.describe(f"{folder}/{name}.golden.npz", data),
            accuracy=row.accuracy,
            fallback=fallback,
        )
        return PlanEntry(artifact, made.path, data)


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
