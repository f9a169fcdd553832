"""Answering the certification samples: what each file says, and whether it is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stoker_builder.data import Sample
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.split import Part
from stoker_contract.manifest import DType, EngineIO

Outputs = Mapping[str, NDArray[np.generic]]

NO_ANSWER = -1  # the output was not finite


@dataclass(frozen=True, slots=True)
class Answers:
    """What one file answers to each sample of a part, in order.

    Attributes:
        best: index of the largest entry of the first output; ``NO_ANSWER`` where an output
            is not finite, and 0 for models that do not classify.
        margin: how far the largest entry is from the second.
        labels: the right answers, or None where they are not known.
    """

    best: NDArray[np.int64]
    margin: NDArray[np.float64]
    labels: NDArray[np.int64] | None

    @property
    def finite(self) -> bool:
        """Whether every output was finite."""
        return bool((self.best != NO_ANSWER).all())

    def right(self, reference: "Answers") -> NDArray[np.bool_]:
        """Per sample: the label was hit; without labels, the reference's answer was."""
        wanted = self.labels if self.labels is not None else reference.best
        hit: NDArray[np.bool_] = self.best == wanted[: len(self.best)]
        return hit

    def head(self, count: int) -> "Answers":
        """The first so many."""
        labels = None if self.labels is None else self.labels[:count]
        return Answers(self.best[:count], self.margin[:count], labels)


def is_classifier(io: EngineIO) -> bool:
    """Whether the first output is one row of scores, of which the largest wins."""
    first = io.outputs[0]
    row = [size for size in first.shape if size != 1]
    floating = first.dtype in {DType.FP16, DType.FP32, DType.FP64}
    return floating and len(row) == 1 and row[0] > 1 and first.shape[-1] == row[0]


def answer_all(
    sessions: Mapping[str, Session],
    part: Part,
    *,
    labelled: bool,
    classifies: bool,
    advance: Callable[[], object],
) -> dict[str, Answers]:
    """Let every file answer every sample; each sample is read once.

    Raises:
        BuildError: ``LABEL_RANGE``, ``DATA_MISMATCH``, or what reading the data raises.
    """
    labels: list[int] = []
    scored: dict[str, list[tuple[int, float]]] = {name: [] for name in sessions}
    for position in range(len(part)):
        sample = part[position]
        for name, session in sessions.items():
            outputs = session.run(sample.inputs)
            scored[name].append(score(outputs, classifies=classifies))
            if labelled and name == next(iter(sessions)):
                labels.append(_label(sample, outputs))
        advance()
    known = np.array(labels, dtype=np.int64) if labelled else None
    return {name: collect(scores, known) for name, scores in scored.items()}


def collect(scores: Sequence[tuple[int, float]], labels: NDArray[np.int64] | None) -> Answers:
    """Put the scores of the first samples of a part together."""
    best = np.array([best for best, _ in scores], dtype=np.int64)
    margin = np.array([margin for _, margin in scores], dtype=np.float64)
    return Answers(best, margin, None if labels is None else labels[: len(best)])


def score(outputs: Outputs, *, classifies: bool) -> tuple[int, float]:
    """Return the winning class of the first output, and by how much it wins."""
    for output in outputs.values():
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            return NO_ANSWER, 0.0
    if not classifies:
        return 0, 0.0
    row = next(iter(outputs.values())).reshape(-1)
    second, first = np.partition(row.astype(np.float64), -2)[-2:]
    return int(row.argmax()), float(first - second)


def _label(sample: Sample, outputs: Outputs) -> int:
    classes = next(iter(outputs.values())).shape[-1]
    label = sample.label
    if label is None:
        detail = f"sample {sample.key} has no label, but the data set says that all have"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, "set labelled to False, or label it")
    if not 0 <= label < classes:
        detail = f"sample {sample.key} has label {label}, the model has classes 0 to {classes - 1}"
        raise BuildError(BuildCode.LABEL_RANGE, detail, "number the labels as the model does")
    return int(label)
