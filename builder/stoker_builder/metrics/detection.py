"""Boxes: mean average precision, of labelled boxes or of those that FP32 finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.data import Sample
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.metrics.metric import Basis, Outputs, Table, label_of

Numbers = NDArray[np.float64]

_HIT: Final = 1.0
_FALSE_ALARM: Final = 0.0
_WANTED: Final = -1.0  # the row is no detection but a box that is to be found


@dataclass(frozen=True, slots=True)
class Boxes:
    """Some boxes of one sample.

    Attributes:
        corners: ``[n, 4]``: x and y of two opposite corners, the smaller ones first.
        classes: ``[n]``.
        scores: ``[n]``; None for labels.
    """

    corners: NDArray[np.generic]
    classes: NDArray[np.generic]
    scores: NDArray[np.generic] | None = None

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class BoxPrecision:
    """Mean average precision at one overlap (mAP@0.5), over the samples as a whole.

    A detection hits when it overlaps a box of its class that no better detection has taken.
    The average precision of a class is the area below its precision, made falling, over
    recall; classes that nobody wants are left out.

    Attributes:
        decode: from the model's outputs to boxes, suppression of duplicates included.
        overlap: intersection over union that counts as found.
        confident: without labels, FP32's detections with at least this score are wanted.
        most: detections of a sample that count, the best ones.
    """

    decode: Callable[[Outputs], Boxes]
    basis: Basis = "labels"
    overlap: float = 0.5
    confident: float = 0.5
    most: int = 100

    lower_is_better: ClassVar[bool] = False
    span: ClassVar[float] = 1.0

    @property
    def name(self) -> str:
        """See :class:`CorpusMetric`."""
        return f"mAP@{self.overlap:g}" + ("" if self.basis == "labels" else " against FP32")

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> Table:
        """One row per detection and per wanted box: class, score, what it is.

        Raises:
            BuildError: ``DATA_MISMATCH``, when the label is not :class:`Boxes`.
        """
        wanted = self._wanted(reference, sample)
        found = self.decode(outputs)
        scores = _scores(found)
        order = np.argsort(-scores, kind="stable")[: self.most]
        hits = _hits(found, wanted, order, self.overlap)
        detections = np.column_stack([_classes(found)[order], scores[order], hits])
        classes = _classes(wanted)
        targets = np.column_stack([classes, np.zeros(len(wanted)), np.full(len(wanted), _WANTED)])
        return np.concatenate([detections, targets])

    def aggregate(self, table: Table) -> float:
        """The mean over the classes that have boxes; 0 without any."""
        is_wanted = table[:, 2] == _WANTED
        wanted, detections = table[is_wanted, 0], table[~is_wanted]
        detections = detections[np.lexsort((-detections[:, 1], detections[:, 0]))]
        classes, counts = np.unique(wanted, return_counts=True)
        starts = np.searchsorted(detections[:, 0], classes, side="left")
        ends = np.searchsorted(detections[:, 0], classes, side="right")
        precisions = [
            _average_precision(detections[start:end, 2], count)
            for start, end, count in zip(starts, ends, counts, strict=True)
        ]
        return float(np.mean(precisions)) if precisions else 0.0

    def margin(self, outputs: Outputs) -> float:
        """How far the detection nearest to ``confident`` is from it."""
        return float(np.abs(_scores(self.decode(outputs)) - self.confident).min(initial=np.inf))

    def _wanted(self, reference: Outputs, sample: Sample) -> Boxes:
        if self.basis == "labels":
            label = label_of(sample)
            if not isinstance(label, Boxes):
                detail = f"the label of sample {sample.key} is {type(label).__name__}"
                hint = "label detections with stoker_builder.metrics.Boxes"
                raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)
            return label
        found = self.decode(reference)
        sure = _scores(found) >= self.confident
        return Boxes(_corners(found)[sure], _classes(found)[sure])


def overlaps(one: Numbers, others: Numbers) -> Numbers:
    """Intersection over union of a box ``[4]`` with others ``[n, 4]``."""
    low = np.maximum(one[:2], others[:, :2])
    high = np.minimum(one[2:], others[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    sizes = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(one[2:] - one[:2])
    return np.asarray(common / np.maximum(sizes - common, np.finfo(np.float64).tiny))


def _hits(found: Boxes, wanted: Boxes, order: NDArray[np.intp], overlap: float) -> Numbers:
    hits = np.full(len(order), _FALSE_ALARM)
    free = np.ones(len(wanted), dtype=np.bool_)
    corners, targets = _corners(found), _corners(wanted)
    classes, target_classes = _classes(found), _classes(wanted)
    for position, index in enumerate(order):
        shares = overlaps(corners[index], targets)
        shares[~free | (target_classes != classes[index])] = 0.0
        if shares.size and shares.max() >= overlap:
            hits[position] = _HIT
            free[shares.argmax()] = False
    return hits


def _average_precision(hits: Numbers, wanted: int) -> float:
    if hits.size == 0:
        return 0.0
    found = np.cumsum(hits)
    precision = found / np.arange(1, hits.size + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(falling * hits) / wanted)


def _corners(boxes: Boxes) -> Numbers:
    return np.asarray(boxes.corners, dtype=np.float64).reshape(len(boxes), 4)


def _classes(boxes: Boxes) -> Numbers:
    return np.asarray(boxes.classes, dtype=np.float64).reshape(-1)


def _scores(boxes: Boxes) -> Numbers:
    scores = np.ones(len(boxes)) if boxes.scores is None else boxes.scores
    return np.asarray(scores, dtype=np.float64).reshape(-1)
