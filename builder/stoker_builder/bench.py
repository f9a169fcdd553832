"""What a build has found out so far, and what it ends with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.cache import Cache
from stoker_builder.candidates.audit import Audit
from stoker_builder.candidates.candidate import REFERENCE, Candidate, candidates_of
from stoker_builder.candidates.recipes import GIVEN, RECIPES
from stoker_builder.candidates.repairs import Repair
from stoker_builder.data import DataSet
from stoker_builder.errors import BuildError
from stoker_builder.kernels.cap import CappedRuntime
from stoker_builder.kernels.places import Place, is_installed, native, place_for
from stoker_builder.latency.candidates import Timings
from stoker_builder.latency.footprint import Start
from stoker_builder.latency.machine import Machine
from stoker_builder.metrics import Metric, Top1
from stoker_builder.models.source import Inputs, SourceModel
from stoker_builder.progress import Progress, Stage
from stoker_builder.report.document import Report
from stoker_builder.request import BuildRequest
from stoker_builder.rows import Row
from stoker_builder.split import Split
from stoker_builder.targets import TargetSpec
from stoker_contract.manifest import Manifest


@dataclass(slots=True)
class Bench:
    """Everything a build has found out so far.

    Attributes:
        capped: ONNX Runtime for targets with an older processor than this one.
        files: the ONNX file of every recipe that could be followed.
        failures: why a recipe could not be followed, or a candidate not be run.
        repairs: what came of the recipes whose answers were not good enough, by recipe.
        audits: what the runtime made of each candidate, by name, see :meth:`audit_name`.
        screened: answers to the selection samples, by place and candidate.
        answers: those of the finalists to the certification samples.
        timings: by place.
    """

    request: BuildRequest
    targets: tuple[TargetSpec, ...]
    data: DataSet
    example: Inputs
    scratch: Path
    machine: Machine
    source: SourceModel
    split: Split
    metric: Metric
    cache: Cache = field(default_factory=lambda: Cache(None))
    capped: CappedRuntime | None = None
    files: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    repairs: dict[str, Repair] = field(default_factory=dict)
    audits: dict[str, Audit] = field(default_factory=dict)
    screened: dict[Place, dict[str, Answers]] = field(default_factory=dict)
    answers: dict[Place, dict[str, Answers]] = field(default_factory=dict)
    timings: dict[Place, Timings] = field(default_factory=dict)
    starts: dict[str, Start] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def classifies(self) -> bool:
        """Whether the largest entry of the first output is the answer."""
        return isinstance(self.metric, Top1) and self.metric.output is None

    @property
    def reference(self) -> Answers:
        """What FP32 in ONNX Runtime answers on this machine."""
        return self.answers[native()][REFERENCE.name]

    @property
    def native_timings(self) -> Timings:
        """Latencies with this machine's own instructions."""
        return self.timings.get(native(), Timings({}))

    @property
    def searched(self) -> bool:
        """Whether anything but FP32 is looked for."""
        return self.request.precision == "auto"

    @contextmanager
    def stage(self, progress: Progress, title: str, total: float) -> Iterator[Stage]:
        """A step that is shown while it runs, and whose duration is kept."""
        began = time.monotonic()
        with progress.stage(title, total) as stage:
            yield stage
        self.seconds[title] = self.seconds.get(title, 0.0) + time.monotonic() - began

    def recipes_for(self, target: TargetSpec) -> tuple[str, ...]:
        """The recipes that are tried for a target, in its order."""
        every = self.request.comparisons
        return tuple(name for name in target.recipes if every or RECIPES[name].is_ours)

    def candidates(self, target: TargetSpec) -> tuple[Candidate, ...]:
        """The candidates for a target, in its order, that this machine has a runtime for."""
        asked = self.request.runtimes
        runtimes = [r for r in target.runtimes if r in asked and is_installed(r)]
        if not self.searched:
            return candidates_of((), runtimes)
        given = (GIVEN,) if self.source.prequantised else ()
        wanted = self.recipes_for(target)
        repairs = [self.repairs[name] for name in wanted if name in self.repairs]
        repaired = [one.name for one in repairs if one.reverted]
        recipes = (*given, *wanted, *repaired)
        return candidates_of(recipes, runtimes, target.float_precisions)

    def repair_of(self, recipe: str) -> Repair | None:
        """What was repaired into a file; None for a file of a recipe."""
        return next((one for one in self.repairs.values() if one.name == recipe), None)

    def was_calibrated(self, candidate: Candidate) -> bool:
        """Whether the calibration samples have a part in a candidate's file."""
        repair = self.repair_of(candidate.recipe)
        recipe = RECIPES.get(repair.base if repair else candidate.recipe)
        return recipe is not None and not recipe.dynamic

    def place_of(self, target: TargetSpec, candidate: Candidate) -> Place:
        """Where a candidate for a target is run."""
        return place_for(target.target, candidate.runtime, self.capped)

    def audit_name(self, candidate: Candidate, arch: str) -> str:
        """The name of what the runtime makes of a candidate on an architecture.

        It takes signed activations as they are on ARM, and not on x86.
        """
        same = candidate.is_float or arch == self.machine.arch
        return candidate.name if same else f"{candidate.name} on {arch}"

    def lose(self, candidate: str, error: BuildError) -> None:
        """Go on without a candidate that can not be run; its row says why."""
        self.failures[candidate] = error.detail
        self.audits.pop(candidate, None)

    def places(self) -> dict[Place, list[Candidate]]:
        """Which candidates run where; FP32 in ONNX Runtime always runs on this machine."""
        found: dict[Place, list[Candidate]] = {native(): [REFERENCE]}
        for target in self.targets:
            for candidate in self.candidates(target):
                place = self.place_of(target, candidate)
                held = found.setdefault(place, [])
                if candidate.recipe in self.files and candidate not in held:
                    held.append(candidate)
        return found


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build."""

    manifest: Manifest
    rows: tuple[Row, ...]
    timings: Timings
    split: Split
    machine: Machine
    report: Report
    output: Path
    data_note: str = ""
