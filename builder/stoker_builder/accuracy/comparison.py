"""From two files' scores to the evidence about a loss."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.accuracy.evidence import Evidence, SampleLosses, SetLoss
from stoker_builder.metrics import CorpusMetric, Metric
from stoker_builder.metrics.metric import aggregated, is_corpus

RESAMPLES: Final = 400  # the standard error is then known to within 4 %
_SEED: Final = 20_220  # any number; the same data gives the same verdict on another day


def value_of(answers: Answers, metric: Metric) -> float:
    """The metric's value, in its own unit; 0 without samples."""
    if len(answers.table) == 0:
        return 0.0
    if is_corpus(metric):
        return aggregated(metric, answers.table)
    return float(answers.table.mean())


def evidence_of(
    reference: Answers, candidate: Answers, metric: Metric, *, relative: float = 0.0
) -> Evidence | None:
    """What the samples that both answered say about the candidate's loss.

    Args:
        reference: FP32's answers to the same samples.
        candidate: the candidate's.
        metric: what both were scored by.
        relative: the share of the reference's value that may be lost: each loss is taken less
            that, which leaves 0 as the limit.

    Returns:
        The evidence in spans of the metric; None without samples.

    Raises:
        ValueError: the two did not answer the same number of samples.
    """
    if len(reference) != len(candidate):
        msg = f"{len(reference)} and {len(candidate)} answers do not pair up"
        raise ValueError(msg)
    both = np.flatnonzero(reference.finite & candidate.finite)
    if not len(both):
        return None
    if is_corpus(metric):
        return _of_sets(reference.chosen(both), candidate.chosen(both), metric, relative)
    before, after = reference.rows(both)[:, 0], candidate.rows(both)[:, 0]
    return SampleLosses.of(np.clip(_loss(before, after, metric, relative), -1.0, 1.0))


def _of_sets(
    reference: Answers, candidate: Answers, metric: CorpusMetric, relative: float
) -> Evidence:
    count = len(reference)
    rng = np.random.default_rng(_SEED)

    def loss(chosen: NDArray[np.integer]) -> float:
        values = [aggregated(metric, answers.rows(chosen)) for answers in (reference, candidate)]
        before, after = np.array(values)
        return float(_loss(before, after, metric, relative))

    losses = [loss(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    return SetLoss(loss(np.arange(count)), count * float(np.var(losses)), count)


def _loss(
    before: NDArray[np.float64], after: NDArray[np.float64], metric: Metric, relative: float
) -> NDArray[np.float64]:
    worse = after - before if metric.lower_is_better else before - after
    return np.asarray((worse - relative * before) / metric.span)
