"""What the kernels of a target that this machine does not have answer, as far as time allows."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stoker_builder.accuracy.evaluate import Answering, Answers, score_all
from stoker_builder.accuracy.golden import Arrays, GoldenSet
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.isa import IsaRunner
from stoker_builder.metrics import Metric
from stoker_builder.progress import Progress
from stoker_builder.split import Part
from stoker_builder.targets import TargetSpec
from stoker_contract.manifest import Precision

_START_S = 5.0  # importing the runtime takes that long under emulation
_SAME_MODEL = 0.01  # of the largest answer: FP32 in another order of sums stays far below


@dataclass(slots=True)
class Emulator:
    """Runs files with the kernels of one target, within one budget of seconds.

    Attributes:
        left_s: what is left of the budget.
    """

    target: TargetSpec
    left_s: float
    progress: Progress

    @property
    def unavailable(self) -> str | None:
        """Why nothing can be run, or None."""
        if self.left_s < _START_S:
            return "no time is left for emulation (--emulation-budget-s)"
        return self._runner().unavailable

    def golden(
        self, path: Path, golden: GoldenSet, precision: Precision
    ) -> tuple[GoldenSet, str | None]:
        """Let the target's kernels answer the golden set, as much of it as there is time for.

        Returns:
            The set, expecting what those kernels answered; and whose kernels answered how
            much, or None when nothing was.

        Raises:
            BuildError: ``MEASURE``, when FP32 is another model on that instruction set.
        """
        outputs, kernels = self._run(path, golden.inputs, "golden set", len(golden))
        if not outputs:
            return golden, None
        wider = golden.observed_elsewhere(outputs, precision)
        if precision is Precision.FP32 and wider.spread > _SAME_MODEL * wider.largest:
            detail = f"FP32 answers differ by {wider.spread:.3g} on {self.target.name}"
            hint = "the model depends on rounding; it can not be shipped to that target"
            raise BuildError(BuildCode.MEASURE, detail, hint)
        return wider, f"{kernels} on {len(outputs)} golden samples"

    def answers(
        self, path: Path, part: Part, reference: Answering, metric: Metric
    ) -> tuple[Answers, str] | None:
        """Answer the first certification samples, as many as there is time for.

        Args:
            path: the candidate.
            part: the certification samples.
            reference: FP32, for metrics that compare answers.
            metric: how an answer is scored.

        Returns:
            The answers and whose kernels gave them; None when there was no time for any.
        """
        inputs = (part[position].inputs for position in range(len(part)))
        outputs, kernels = self._run(path, inputs, path.stem, len(part))
        if not outputs:
            return None
        answers = score_all(outputs, reference, part, metric)
        return answers, f"{kernels} on {len(outputs)} samples"

    def _runner(self) -> IsaRunner:
        cores = os.cpu_count() or 1
        return IsaRunner(self.target.target, time_budget_s=self.left_s, jobs=cores)

    def _run(
        self, path: Path, inputs: Iterator[Arrays] | tuple[Arrays, ...], what: str, total: int
    ) -> tuple[tuple[Arrays, ...], str]:
        if self.unavailable is not None:
            return (), ""
        runner = self._runner()
        began = time.monotonic()
        title = f"{what}, emulated (up to {self.left_s:.0f} s)"
        with self.progress.stage(title, total) as stage:
            try:
                run = runner.run(path, inputs, progress=lambda _count: stage.advance())
            except BuildError as error:
                # the emulator is a help, not a gate: without it the manifest claims less
                self.progress.note(f"{self.target.name}: {error.detail}")
                self.left_s = 0.0
                return (), ""
        self.left_s -= time.monotonic() - began
        return run.outputs, runner.certified_on or ""
