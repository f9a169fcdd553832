"""Sequences: all of it right, or not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stoker_builder.data import Sample
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.metrics.metric import Basis, Outputs, label_of, pick


@dataclass(frozen=True, slots=True)
class SequenceMatch:
    """The best entry at each step gives exactly the sequence that is wanted.

    Attributes:
        blank: for CTC, the class that stands for nothing: repeats are merged, then it is
            dropped. None takes every step as it is.
        output: its name, ``[..., steps, classes]``; the first one if None.
    """

    blank: int | None = 0
    basis: Basis = "labels"
    output: str | None = None

    lower_is_better: ClassVar[bool] = False
    span: ClassVar[float] = 1.0

    @property
    def name(self) -> str:
        """See :class:`SampleMetric`."""
        return "exact match" if self.basis == "labels" else "exact match with FP32"

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """1 or 0.

        Raises:
            BuildError: ``DATA_MISMATCH``, when the label is no sequence of class indices.
        """
        wanted = self._read(reference) if self.basis == "agreement" else _indices(sample)
        return float(self._read(outputs) == wanted)

    def margin(self, outputs: Outputs) -> float:
        """How far the best entry is from the second at the step where they are closest."""
        steps = pick(outputs, self.output)
        if steps.size == 0 or steps.shape[-1] < 2:  # noqa: PLR2004  nothing to choose
            return float("inf")
        best_two = np.partition(steps, -2, axis=-1)[..., -2:]
        return float((best_two[..., 1] - best_two[..., 0]).min())

    def _read(self, outputs: Outputs) -> list[int]:
        best = [int(index) for index in pick(outputs, self.output).argmax(axis=-1).reshape(-1)]
        if self.blank is None:
            return best
        merged = [now for now, before in zip(best, [None, *best], strict=False) if now != before]
        return [index for index in merged if index != self.blank]


def _indices(sample: Sample) -> list[int]:
    label = label_of(sample)
    detail = f"the label of sample {sample.key} is no sequence of class indices"
    hint = "give a list of integers"
    if not isinstance(label, Iterable) or isinstance(label, (str, bytes)):
        raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)
    try:
        return [int(index) for index in label]
    except (TypeError, ValueError):
        raise BuildError(BuildCode.DATA_MISMATCH, detail, hint) from None
