"""What a metric is, and the edge at which a user's metric is checked.

A sample is scored once for each candidate, and only its score is kept: outputs can be large.
The reference's outputs to the same sample are at hand, for metrics that compare answers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stoker_builder.data import Sample
from stoker_builder.errors import BuildCode, BuildError
from stoker_contract.manifest import DType, EngineIO

Tensor: TypeAlias = NDArray[Any]
Outputs: TypeAlias = Mapping[str, Tensor]  # in the order of the model's outputs
Table: TypeAlias = NDArray[np.float64]  # [rows, columns]: what is kept of some samples
Basis = Literal["labels", "agreement"]


class Described(Protocol):
    """What every metric says about itself."""

    @property
    def name(self) -> str:
        """For reports; with the unit, where there is one: ``absolute error (mm)``."""

    @property
    def basis(self) -> Basis:
        """``labels``, when right answers are known; ``agreement``, when FP32's stand for them."""

    @property
    def lower_is_better(self) -> bool:
        """True for errors."""

    @property
    def span(self) -> float:
        """How far apart the best and the worst score of one sample can be; 1 for shares.

        Losses, bounds and budgets are fractions of it: a point is a hundredth of the span.
        """


@runtime_checkable
class SampleMetric(Described, Protocol):
    """One number for each sample, between 0 and ``span``; their mean is the metric's value."""

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """How good (or how wrong) one answer is.

        Args:
            outputs: by name, as the model gives them, all finite.
            reference: what FP32 answered to the same sample; ``outputs`` itself for FP32.
            sample: with the label.
        """


@runtime_checkable
class CorpusMetric(Described, Protocol):
    """A value that only all samples together have: mAP, a word error rate, F1 of a class.

    ``span`` is then the range of that value.
    """

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> Table:
        """What has to be kept of one sample: one row, or several, of one width throughout."""

    def aggregate(self, table: Table) -> float:
        """The value of some samples, whose rows lie below each other in any order.

        Called with samples left out and with samples repeated, to see how sure the value is.
        """


Metric: TypeAlias = SampleMetric | CorpusMetric


@runtime_checkable
class HasMargin(Protocol):
    """A metric that knows how close a call was; the golden set is chosen by it."""

    def margin(self, outputs: Outputs) -> float:
        """How far the answer is from being another one."""


def is_corpus(metric: Metric) -> TypeGuard[CorpusMetric]:
    """Whether the value is not simply a mean over samples."""
    return hasattr(metric, "aggregate")


def checked(metric: object) -> Metric:
    """Return what a data set gave as its metric, if it is one.

    Raises:
        BuildError: ``METRIC``.
    """
    hint = "see stoker_builder.metrics: name, basis, lower_is_better, span and score"
    if not isinstance(metric, (SampleMetric, CorpusMetric)):
        detail = f"the data set's metric is {type(metric).__name__}, which is none"
        raise BuildError(BuildCode.METRIC, detail, hint)
    if metric.basis not in ("labels", "agreement") or not 0 < metric.span < np.inf:
        detail = f"the metric {metric.name} has basis {metric.basis!r} and span {metric.span!r}"
        raise BuildError(BuildCode.METRIC, detail, hint)
    return metric


def rows_of(metric: Metric, outputs: Outputs, reference: Outputs, sample: Sample) -> Table:
    """Score one sample, and refuse what is no score.

    Returns:
        The rows to keep; ``[[score]]`` for a sample metric.

    Raises:
        BuildError: ``METRIC``, or what a metric of ours raises (``DATA_MISMATCH``,
            ``LABEL_RANGE``).
    """
    with _users_code(f"scoring sample {sample.key}"):
        score = np.asarray(metric.score(outputs, reference, sample), dtype=np.float64)
    if is_corpus(metric):
        rows = score if score.ndim == 2 else score.reshape(1, -1)  # noqa: PLR2004  rows, columns
        fine = bool(np.isfinite(rows).all())
    else:
        rows = score.reshape(1, -1)
        fine = rows.size == 1 and 0 <= rows[0, 0] <= metric.span * (1 + 1e-9)
    if not fine:
        detail = f"sample {sample.key} scores {score}, by {metric.name} with span {metric.span}"
        raise BuildError(BuildCode.METRIC, detail, "a score is finite, and within 0 and the span")
    return rows


def margin_of(metric: Metric, outputs: Outputs) -> float:
    """How close a call was; infinite when the metric can not tell.

    Raises:
        BuildError: ``METRIC``.
    """
    if not isinstance(metric, HasMargin):
        return float("inf")
    with _users_code("the margin of an answer"):
        return float(metric.margin(outputs))


def aggregated(metric: CorpusMetric, table: Table) -> float:
    """The value of some samples.

    Raises:
        BuildError: ``METRIC``.
    """
    with _users_code(f"aggregating {len(table)} rows"):
        value = float(metric.aggregate(table))
    if not np.isfinite(value):
        detail = f"{metric.name} of {len(table)} rows is {value}"
        raise BuildError(BuildCode.METRIC, detail, "give a number for any choice of samples")
    return value


@contextmanager
def _users_code(what: str) -> Iterator[None]:
    """Say which code of the user's raised."""
    try:
        yield
    except BuildError:
        raise
    except Exception as error:  # not our code
        detail = f"{what} raised {type(error).__name__}: {error}"
        raise BuildError(BuildCode.METRIC, detail, "call the metric alone in Python") from error


def pick(outputs: Outputs, name: str | None) -> NDArray[np.float64]:
    """One output as double precision: the named one, or the first.

    Raises:
        BuildError: ``DATA_MISMATCH``, when there is none of that name.
    """
    if name is None:
        return next(iter(outputs.values())).astype(np.float64)
    if name not in outputs:
        detail = f"the metric reads output {name}, the model has {', '.join(outputs)}"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, "name an output of the model")
    return outputs[name].astype(np.float64)


def label_of(sample: Sample) -> object:
    """The label.

    Raises:
        BuildError: ``DATA_MISMATCH``, when there is none.
    """
    if sample.label is None:
        detail = f"sample {sample.key} has no label, but the data set says that all have"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, "set labelled to False, or label it")
    return sample.label


def numbers_of(sample: Sample, like: NDArray[np.float64]) -> NDArray[np.float64]:
    """The label as numbers in the shape of an output.

    Raises:
        BuildError: ``DATA_MISMATCH``, when there is none or it has another size.
    """
    try:
        label = np.asarray(label_of(sample), dtype=np.float64)
        return label.reshape(like.shape)
    except (ValueError, TypeError):
        detail = f"the label of sample {sample.key} does not have the shape {like.shape}"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, "one number per output entry") from None


def is_classifier(io: EngineIO) -> bool:
    """Whether the first output is one row of scores, of which the largest wins."""
    first = io.outputs[0]
    row = [size for size in first.shape if size != 1]
    floating = first.dtype in {DType.FP16, DType.FP32, DType.FP64}
    return floating and len(row) == 1 and row[0] > 1 and first.shape[-1] == row[0]
