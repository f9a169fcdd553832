"""One class of several, or several labels at once."""

import operator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stoker_builder.data import Sample
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.metrics.metric import Basis, Outputs, label_of, numbers_of, pick


@dataclass(frozen=True, slots=True)
class Top1:
    """The largest entry of an output is the right class, or the one that FP32 finds.

    Attributes:
        output: its name; the first one if None.
    """

    basis: Basis = "labels"
    output: str | None = None

    lower_is_better: ClassVar[bool] = False
    span: ClassVar[float] = 1.0

    @property
    def name(self) -> str:
        """See :class:`SampleMetric`."""
        return "top-1" if self.basis == "labels" else "top-1 agreement with FP32"

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """1 or 0.

        Raises:
            BuildError: ``LABEL_RANGE``, ``DATA_MISMATCH``.
        """
        row = pick(outputs, self.output).reshape(-1)
        if self.basis == "agreement":
            wanted = int(pick(reference, self.output).argmax())
        else:
            wanted = _class_of(sample, row.size)
        return float(int(row.argmax()) == wanted)

    def margin(self, outputs: Outputs) -> float:
        """How far the largest entry is from the second."""
        row = pick(outputs, self.output).reshape(-1)
        if row.size < 2:  # noqa: PLR2004  one class always wins
            return float("inf")
        second, first = np.partition(row, -2)[-2:]
        return float(first - second)


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """Which entries are above a threshold: F1 of each sample, 1 when nothing is to be found.

    With one entry this is right or wrong of a yes or no.

    Attributes:
        threshold: 0.5 for probabilities, 0 for logits.
        output: its name; the first one if None.
    """

    threshold: float = 0.5
    basis: Basis = "labels"
    output: str | None = None

    lower_is_better: ClassVar[bool] = False
    span: ClassVar[float] = 1.0

    @property
    def name(self) -> str:
        """See :class:`SampleMetric`."""
        return "F1 per sample" if self.basis == "labels" else "F1 per sample, against FP32"

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """F1 of one sample.

        Raises:
            BuildError: ``DATA_MISMATCH``, when the label has not one number per entry.
        """
        found = pick(outputs, self.output)
        if self.basis == "agreement":
            wanted = pick(reference, self.output) > self.threshold
        else:
            wanted = numbers_of(sample, found) > 0
        found_ones = found > self.threshold
        both = int(np.count_nonzero(found_ones & wanted))
        either = int(np.count_nonzero(found_ones)) + int(np.count_nonzero(wanted))
        return 2 * both / either if either else 1.0

    def margin(self, outputs: Outputs) -> float:
        """How far the entry nearest to the threshold is from it."""
        return float(np.abs(pick(outputs, self.output) - self.threshold).min(initial=np.inf))


def _class_of(sample: Sample, classes: int) -> int:
    try:
        label = operator.index(label_of(sample))  # type: ignore[arg-type]  # that is the question
    except TypeError:
        detail = f"the label of sample {sample.key} is {sample.label!r}, not a class index"
        hint = "number the classes, or give the data set a metric"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, hint) from None
    if not 0 <= label < classes:
        detail = f"sample {sample.key} has label {label}, the model has classes 0 to {classes - 1}"
        raise BuildError(BuildCode.LABEL_RANGE, detail, "number the labels as the model does")
    return label
