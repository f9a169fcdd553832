"""How good an answer is: what a data set may give as its ``metric``.

Built in, and short enough to be examples for one of your own:

=======================  ==================================================================
:class:`Top1`            the largest entry is the right class
:class:`MultiLabel`      several labels at once, or one yes or no: F1 of each sample
:class:`AbsoluteError`   numbers: how far off, lower is better
:class:`OutputError`     any model, no labels: squared difference from FP32's outputs
:class:`Cosine`          embeddings: the angle to FP32's
:class:`Head`            embeddings: what your classifier makes of them
:class:`BoxPrecision`    detectors: mAP at an overlap, of all samples together
:class:`SequenceMatch`   sequences, CTC or not: all of it right
=======================  ==================================================================

A metric of your own is an object with what :class:`SampleMetric` or :class:`CorpusMetric`
list; there is nothing to inherit from.
"""

from stoker_builder.metrics.classification import MultiLabel, Top1
from stoker_builder.metrics.detection import Boxes, BoxPrecision
from stoker_builder.metrics.embedding import Cosine, Head
from stoker_builder.metrics.metric import Basis, CorpusMetric, Metric, Outputs, SampleMetric, Table
from stoker_builder.metrics.regression import AbsoluteError, OutputError
from stoker_builder.metrics.sequence import SequenceMatch

__all__ = [
    "AbsoluteError",
    "Basis",
    "BoxPrecision",
    "Boxes",
    "CorpusMetric",
    "Cosine",
    "Head",
    "Metric",
    "MultiLabel",
    "OutputError",
    "Outputs",
    "SampleMetric",
    "SequenceMatch",
    "Table",
    "Top1",
]
