"""Answering samples: what each file says, scored at once; outputs are not kept."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stoker_builder.data import DataSet, Sample
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.metrics import Metric, OutputError, Outputs, Top1
from stoker_builder.metrics.metric import Table, checked, is_classifier, margin_of, rows_of
from stoker_builder.split import Part
from stoker_contract.manifest import EngineIO

_NO_ROWS: Final = np.empty((0, 1))


class Answering(Protocol):
    """Something that answers one sample after the other."""

    def run(self, inputs: Outputs, /) -> Outputs:
        """Answer one sample with all outputs."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What is kept of one file's answers to the first samples of a part, in order.

    Attributes:
        table: the rows of all samples, one below the other; see ``CorpusMetric.score``.
        lengths: how many rows each sample has; none when it was not answered.
        margin: how close each call was; infinite where the metric can not tell.
        finite: whether all outputs were.
        groups: the slice that each sample belongs to; empty for none.
    """

    table: Table
    lengths: NDArray[np.int64]
    margin: NDArray[np.float64]
    finite: NDArray[np.bool_]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, positions: NDArray[np.integer]) -> Table:
        """The rows of some samples, repeated for samples that are named repeatedly."""
        lengths = self.lengths[positions]
        starts = (np.cumsum(self.lengths) - self.lengths)[positions]
        before = np.cumsum(lengths) - lengths
        chosen: Table = self.table[np.repeat(starts - before, lengths) + np.arange(lengths.sum())]
        return chosen

    def chosen(self, positions: NDArray[np.integer]) -> "Answers":
        """Some of the samples."""
        return Answers(
            self.rows(positions),
            self.lengths[positions],
            self.margin[positions],
            self.finite[positions],
            tuple(self.groups[position] for position in positions),
        )

    def head(self, count: int) -> "Answers":
        """The first so many."""
        return self.chosen(np.arange(min(count, len(self))))


@dataclass(slots=True)
class Scorer:
    """Collects the scores of one file while it answers, one sample after the other."""

    metric: Metric
    _rows: list[Table] = field(default_factory=list)
    _margin: list[float] = field(default_factory=list)
    _finite: list[bool] = field(default_factory=list)
    _groups: list[str] = field(default_factory=list)

    def add(self, outputs: Outputs, reference: Outputs, sample: Sample) -> None:
        """Score one answer.

        Args:
            outputs: what the file answered.
            reference: what FP32 answered to the same sample; ``outputs`` for FP32 itself.
            sample: the sample.

        Raises:
            BuildError: ``METRIC``, ``LABEL_RANGE`` or ``DATA_MISMATCH``.
        """
        fine = is_finite(outputs)
        comparable = fine and (outputs is reference or is_finite(reference))
        self._finite.append(fine)
        self._rows.append(self._scored(outputs, reference, sample) if comparable else _NO_ROWS)
        self._margin.append(margin_of(self.metric, outputs) if fine else 0.0)
        self._groups.append(group_of(sample, self.metric))

    def answers(self) -> Answers:
        """What was collected so far."""
        return Answers(
            np.concatenate([rows for rows in self._rows if len(rows)] or [_NO_ROWS]),
            np.array([len(rows) for rows in self._rows], dtype=np.int64),
            np.array(self._margin, dtype=np.float64),
            np.array(self._finite, dtype=np.bool_),
            tuple(self._groups),
        )

    def _scored(self, outputs: Outputs, reference: Outputs, sample: Sample) -> Table:
        rows = rows_of(self.metric, outputs, reference, sample)
        first = next((before for before in self._rows if len(before)), rows)
        if len(rows) and rows.shape[1] != first.shape[1]:
            detail = f"sample {sample.key} scores {rows.shape[1]} numbers, another {first.shape[1]}"
            raise BuildError(BuildCode.METRIC, detail, "keep rows of one width for every sample")
        return rows


def metric_of(data: DataSet, io: EngineIO) -> Metric:
    """How answers are judged: the data set's own metric, or the one that fits the model.

    Raises:
        BuildError: ``METRIC``, when the data set has one that is none.
    """
    own = getattr(data, "metric", None)
    if own is not None:
        return checked(own)
    if is_classifier(io):
        return Top1("labels" if data.labelled else "agreement")
    return OutputError()


def answer_all(  # noqa: PLR0913  what answers what, and how
    files: Mapping[str, Answering],
    part: Part,
    metric: Metric,
    *,
    parallel: int = 1,
    lost: Callable[[str, BuildError], None] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Answers]:
    """Let every file answer every sample; each sample is read once.

    Args:
        files: the first is the reference.
        part: the samples.
        metric: how an answer is scored.
        parallel: so many files answer a sample at a time.
        lost: is told of a file that can not answer a sample which the reference answers, and
            why; the others go on without it. Without it, that is raised.
        advance: called for each sample.

    Raises:
        BuildError: ``METRIC``, ``LABEL_RANGE``, ``DATA_MISMATCH``, or what reading raises.
    """
    scorers = {name: Scorer(metric) for name in files}
    first = next(iter(files))
    with ThreadPoolExecutor(parallel, thread_name_prefix="answer") as pool:
        for position in range(len(part)):
            sample = part[position]
            given = partial(_attempt, inputs=sample.inputs)
            tried = dict(zip(scorers, pool.map(given, [files[n] for n in scorers]), strict=True))
            reference = tried[first]
            if isinstance(reference, BuildError):
                raise reference
            for name, outputs in tried.items():
                if not isinstance(outputs, BuildError):
                    scorers[name].add(outputs, reference, sample)
                elif lost is None:
                    raise outputs
                else:
                    lost(name, outputs)
                    del scorers[name]
            advance()
    return {name: scorer.answers() for name, scorer in scorers.items()}


def _attempt(file: Answering, inputs: Outputs) -> Outputs | BuildError:
    try:
        return file.run(inputs)
    except BuildError as error:
        return error


def score_all(
    outputs: Sequence[Outputs], reference: Answering, part: Part, metric: Metric
) -> Answers:
    """Score answers to the first samples of a part that were given somewhere else."""
    scorer = Scorer(metric)
    for position, answer in enumerate(outputs):
        sample = part[position]
        scorer.add(answer, reference.run(sample.inputs), sample)
    return scorer.answers()


def is_finite(outputs: Outputs) -> bool:
    """Whether there is neither NaN nor infinity in them."""
    return all(
        output.dtype.kind != "f" or bool(np.isfinite(output).all()) for output in outputs.values()
    )


def group_of(sample: Sample, metric: Metric) -> str:
    """The slice that a sample belongs to: its own, or the class that it is labelled with."""
    if sample.group:
        return sample.group
    is_class = isinstance(sample.label, (int, np.integer)) and metric.basis == "labels"
    return f"class {sample.label}" if is_class else ""
