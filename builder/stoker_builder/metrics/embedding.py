"""Vectors that others compute with: their angle to FP32's, or what comes out downstream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stoker_builder.data import Sample
from stoker_builder.metrics.metric import Basis, Outputs, SampleMetric, margin_of, pick


@dataclass(frozen=True, slots=True)
class Cosine:
    """Cosine similarity to FP32's vector; opposite ones count as unrelated.

    Attributes:
        output: its name; the first one if None.
    """

    output: str | None = None

    basis: ClassVar[Basis] = "agreement"
    lower_is_better: ClassVar[bool] = False
    span: ClassVar[float] = 1.0
    name: ClassVar[str] = "cosine similarity to FP32"

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """Between 0 and 1."""
        del sample
        one = pick(outputs, self.output).reshape(-1)
        other = pick(reference, self.output).reshape(-1)
        sizes = float(np.linalg.norm(one) * np.linalg.norm(other))
        if sizes == 0:
            return float(not one.any() and not other.any())
        return min(max(float(one @ other) / sizes, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Head:
    """What your own computation makes of the outputs, judged by another metric.

    A classifier on embeddings, say: ``Head(lambda outputs: {"scores": fitted(outputs["e"])},
    Top1())``.

    Attributes:
        function: from the model's outputs to those that ``metric`` reads.
        metric: of these; with labels, or against what the head makes of FP32's outputs.
    """

    function: Callable[[Outputs], Outputs]
    metric: SampleMetric

    @property
    def name(self) -> str:
        """See :class:`SampleMetric`."""
        return f"{self.metric.name}, downstream"

    @property
    def basis(self) -> Basis:
        """See :class:`SampleMetric`."""
        return self.metric.basis

    @property
    def lower_is_better(self) -> bool:
        """See :class:`SampleMetric`."""
        return self.metric.lower_is_better

    @property
    def span(self) -> float:
        """See :class:`SampleMetric`."""
        return self.metric.span

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """What the other metric says.

        Raises:
            BuildError: as the other metric.
        """
        return self.metric.score(self.function(outputs), self.function(reference), sample)

    def margin(self, outputs: Outputs) -> float:
        """What the other metric says, if it can tell."""
        return margin_of(self.metric, self.function(outputs))
