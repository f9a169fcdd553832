"""Numbers: how far off they are from the labels, or from FP32's."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stoker_builder.data import Sample
from stoker_builder.metrics.metric import Basis, Outputs, numbers_of, pick


@dataclass(frozen=True, slots=True)
class AbsoluteError:
    """Mean absolute error of the entries of an output.

    Attributes:
        span: an error that could not be worse, in the unit of the output: what is further off
            counts as this. Without it, no number of samples excludes a rare enormous error.
        unit: for reports.
        output: its name; the first one if None.
    """

    span: float
    unit: str = ""
    basis: Basis = "labels"
    output: str | None = None

    lower_is_better: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """See :class:`SampleMetric`."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"absolute error{unit}{'' if self.basis == 'labels' else ' against FP32'}"

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """The error of one sample, at most ``span``.

        Raises:
            BuildError: ``DATA_MISMATCH``, when the label has not one number per entry.
        """
        given = pick(outputs, self.output)
        if self.basis == "agreement":
            wanted = pick(reference, self.output)
        else:
            wanted = numbers_of(sample, given)
        return min(float(np.abs(given - wanted).mean()), self.span)


@dataclass(frozen=True, slots=True)
class OutputError:
    """How much of FP32's outputs is lost: squared difference over squared size, at most 1.

    It needs no labels and knows nothing of the task. One point is an error with a hundredth of
    the energy of the answer (a signal-to-noise ratio of 20 dB). Entries that share their mean
    are measured from it; of several outputs the worst counts; of outputs that are no floating
    point numbers, the share of entries that differ.
    """

    basis: ClassVar[Basis] = "agreement"
    lower_is_better: ClassVar[bool] = True
    span: ClassVar[float] = 1.0
    name: ClassVar[str] = "squared error against FP32's outputs"

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """The error of one sample."""
        del sample
        return max(_share_lost(outputs[name], reference[name]) for name in reference)


def _share_lost(given: np.ndarray, wanted: np.ndarray) -> float:
    if given.shape != wanted.shape:
        return 1.0
    if wanted.dtype.kind != "f":
        return float((given != wanted).mean()) if wanted.size else 0.0
    wide = wanted.astype(np.float64)
    error = float(np.square(given.astype(np.float64) - wide).sum())
    size = float(np.square(wide - wide.mean()).sum()) if wide.size > 1 else 0.0
    size = size or float(np.square(wide).sum())
    if error == 0:
        return 0.0
    return min(error / size, 1.0) if size > 0 else 1.0
