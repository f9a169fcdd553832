"""What the kernels of a target that this machine does not have answer, as far as time allows."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stoker_builder.accuracy.evaluate import Answering, Answers, score_all
from stoker_builder.accuracy.golden import Arrays, GoldenSet
from stoker_builder.cache import Cache, digest_of_file
from stoker_builder.data import Sample, content_digest
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.isa import IsaRunner
from stoker_builder.metrics import Metric
from stoker_builder.progress import Progress
from stoker_builder.split import Part
from stoker_builder.targets import TargetSpec
from stoker_contract.manifest import Precision

_LEAST_S = 2.0  # for less, starting the emulator is not worth the while
_SAME_MODEL = 0.01  # of the largest answer: FP32 in another order of sums stays far below


@dataclass(slots=True)
class Emulator:
    """Runs files with the kernels of one target, within one budget of seconds.

    Attributes:
        left_s: what is left of the budget, which is for answering: starting is not counted.
    """

    target: TargetSpec
    left_s: float
    progress: Progress
    cache: Cache = field(default_factory=lambda: Cache(None))
    _failure: str | None = field(default=None, init=False)

    @property
    def unavailable(self) -> str | None:
        """Why nothing can be run, or not any more, or None."""
        if self._failure is not None:
            return self._failure
        if self.left_s < _LEAST_S:
            return "no time is left for emulation (--emulation-budget-s)"
        return self._runner(self.left_s).unavailable

    def golden(
        self, path: Path, golden: GoldenSet, precision: Precision, *, share: float = 1.0
    ) -> tuple[GoldenSet, str | None]:
        """Let the target's kernels answer the golden set, as much of it as there is time for.

        Args:
            path: the candidate.
            golden: what it answers on this machine.
            precision: of the candidate.
            share: of the time that is left, if that is worth starting for.

        Returns:
            The set, expecting what those kernels answered; and whose kernels answered how
            much, or None when nothing was.

        Raises:
            BuildError: ``MEASURE``, when FP32 is another model on that instruction set.
        """
        digests = [content_digest(Sample(inputs, None, "")) for inputs in golden.inputs]
        outputs, kernels = self._run(path, golden.inputs, "golden set", digests, share)
        if not outputs:
            return golden, None
        wider = golden.observed_elsewhere(outputs, precision)
        if precision is Precision.FP32 and wider.spread > _SAME_MODEL * wider.largest:
            detail = f"FP32 answers differ by {wider.spread:.3g} on {self.target.name}"
            hint = "the model depends on rounding; it can not be shipped to that target"
            raise BuildError(BuildCode.MEASURE, detail, hint)
        return wider, f"{kernels} on {len(outputs)} golden samples"

    def answers(
        self,
        path: Path,
        part: Part,
        reference: Answering,
        metric: Metric,
        *,
        share: float = 1.0,
    ) -> tuple[Answers, str] | None:
        """Answer the first certification samples, as many as there is time for.

        Args:
            path: the candidate.
            part: the certification samples.
            reference: FP32, for metrics that compare answers.
            metric: how an answer is scored.
            share: of the time that is left, if that is worth starting for.

        Returns:
            The answers and whose kernels gave them; None when there was no time for any.
        """
        inputs = (part[position].inputs for position in range(len(part)))
        outputs, kernels = self._run(path, inputs, path.stem, part.digests, share)
        if not outputs:
            return None
        answers = score_all(outputs, reference, part, metric)
        return answers, f"{kernels} on {len(outputs)} samples"

    def _runner(self, limit_s: float) -> IsaRunner:
        cores = os.cpu_count() or 1
        return IsaRunner(self.target.target, time_budget_s=limit_s, jobs=cores)

    def _run(
        self,
        path: Path,
        inputs: Iterable[Arrays],
        what: str,
        digests: Sequence[str],
        share: float,
    ) -> tuple[tuple[Arrays, ...], str]:
        if self.unavailable is not None:
            return (), ""
        limit_s = max(share * self.left_s, _LEAST_S)
        runner = self._runner(limit_s)
        key = self.cache.key(
            "emulated",
            file=digest_of_file(path),
            on=runner.certified_on,
            samples=list(digests),
        )
        if (known := self.cache.arrays(key)) is not None:
            return _divided(known), runner.certified_on or ""
        title = f"{what}, emulated (up to {limit_s:.0f} s)"
        with self.progress.stage(title, len(digests)) as stage:
            try:
                run = runner.run(path, inputs, progress=lambda _count: stage.advance())
            except BuildError as error:
                # the emulator is a help, not a gate: without it the manifest claims less
                self.progress.note(f"{self.target.name}: {error.detail}")
                self._failure = error.detail
                return (), ""
        self.left_s -= run.seconds
        if run.complete:
            self.cache.keep_arrays(key, _joined(run.outputs))
        return run.outputs, runner.certified_on or ""


def _joined(outputs: Sequence[Arrays]) -> Arrays:
    return {
        f"{position} {name}": array
        for position, answer in enumerate(outputs)
        for name, array in answer.items()
    }


def _divided(arrays: Arrays) -> tuple[Arrays, ...]:
    answers: dict[int, dict[str, Any]] = {}
    for key, array in arrays.items():
        position, _, name = key.partition(" ")
        answers.setdefault(int(position), {})[name] = array
    return tuple(answers[position] for position in sorted(answers))
