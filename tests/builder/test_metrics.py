"""Metrics: what each of them says of an answer, and what is refused as one."""

from dataclasses import dataclass

import numpy as np
import pytest

from stoker_builder.accuracy.evaluate import Scorer, metric_of
from stoker_builder.data import MemoryDataSet, Sample
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.metrics import (
    AbsoluteError,
    Boxes,
    BoxPrecision,
    Cosine,
    Head,
    Metric,
    MultiLabel,
    OutputError,
    Outputs,
    SequenceMatch,
    Table,
    Top1,
)
from stoker_builder.metrics.metric import aggregated, checked, margin_of, rows_of
from stoker_contract.manifest import DType, EngineIO, TensorSpec

X = {"x": np.zeros((1, 1), np.float32)}


def outputs(*values: object) -> Outputs:
    """Outputs of a model, of which most metrics read the first."""
    return {f"y{i}": np.array(value, np.float32) for i, value in enumerate(values)}


def sample(label: object = None, group: str = "") -> Sample:
    """A sample with a label."""
    return Sample(X, label, "s", group)


def score(metric: Metric, given: Outputs, wanted: Outputs, label: object = None) -> float:
    """The score of one sample."""
    return float(rows_of(metric, given, wanted, sample(label))[0, 0])


def io(*shape: int) -> EngineIO:
    """A model with one output of this shape."""
    tensor = TensorSpec(name="y", dtype=DType.FP32, shape=shape)
    return EngineIO(inputs=(tensor,), outputs=(tensor,))


def test_the_largest_entry_is_right_or_agrees() -> None:
    """With labels the label counts, without them what FP32 finds."""
    given, reference = outputs([[1, 3, 2]]), outputs([[1, 2, 3]])

    assert score(Top1(), given, reference, label=1) == 1
    assert score(Top1(), given, reference, label=np.int64(2)) == 0
    assert score(Top1("agreement"), given, reference) == 0
    assert score(Top1("agreement"), given, given) == 1
    assert margin_of(Top1(), given) == 1


def test_several_labels_are_scored_by_f1() -> None:
    """Two of three found and one too many is 2/3; nothing to find and nothing found is 1."""
    given = outputs([[0.9, 0.8, 0.1, 0.7]])

    assert score(MultiLabel(), given, given, label=[1, 1, 1, 0]) == pytest.approx(2 / 3)
    assert score(MultiLabel(), outputs([[0.1]]), given, label=0) == 1
    assert score(MultiLabel(), outputs([[0.6]]), given, label=0) == 0
    assert score(MultiLabel(basis="agreement"), given, given) == 1
    assert margin_of(MultiLabel(), given) == pytest.approx(0.2)


def test_errors_of_numbers_end_at_the_span() -> None:
    """The error is in the unit of the output, and what is further off counts as the span."""
    metric = AbsoluteError(span=10, unit="mm")

    assert score(metric, outputs([1, 4]), outputs([0, 0]), label=[2, 2]) == 1.5
    assert score(metric, outputs([100]), outputs([0]), label=3) == 10
    assert metric.name == "absolute error (mm)"


def test_any_output_can_be_compared_with_that_of_fp32() -> None:
    """A tenth of the amplitude is a hundredth of the energy; the worst output counts."""
    wanted = outputs([3, -3, 3, -3], [1, -1])
    given = outputs([3.3, -3.3, 3.3, -3.3], [1, -1])

    assert score(OutputError(), given, wanted) == pytest.approx(0.01)
    assert score(OutputError(), wanted, wanted) == 0
    assert score(OutputError(), outputs([0, 0, 0, 0], [9, 9]), wanted) == 1
    assert score(OutputError(), outputs([5.0]), outputs([0.0])) == 1
    integers = {"y": np.array([1, 2, 3, 4])}
    assert score(OutputError(), {"y": np.array([1, 2, 3, 5])}, integers) == 0.25


def test_a_constant_added_to_large_numbers_is_no_small_error() -> None:
    """What all entries share hides nothing: the error is measured against their differences."""
    wanted = outputs([1000, 1001, 1000, 1001])

    assert score(OutputError(), outputs([1000, 1000, 1000, 1000]), wanted) == 1


def test_embeddings_are_compared_by_angle_or_by_what_follows() -> None:
    """The same direction is 1, a right angle 0; a head turns vectors into classes."""
    metric = Head(lambda found: {"scores": found["y0"] @ np.eye(2)[::-1]}, Top1())

    assert score(Cosine(), outputs([2, 0]), outputs([1, 0])) == 1
    assert score(Cosine(), outputs([0, 1]), outputs([1, 0])) == 0
    assert score(Cosine(), outputs([0, 0]), outputs([1, 0])) == 0
    assert score(metric, outputs([[5, 1]]), outputs([[5, 1]]), label=1) == 1
    assert margin_of(metric, outputs([[5, 1]])) == 4
    assert margin_of(Cosine(), outputs([5, 1])) == float("inf")


def test_ctc_merges_repeats_and_drops_blanks() -> None:
    """The steps 1 1 - 1 2 2 read as 1 1 2."""
    steps = np.eye(3)[[1, 1, 0, 1, 2, 2]][np.newaxis]

    assert score(SequenceMatch(), outputs(steps), outputs(steps), label=[1, 1, 2]) == 1
    assert score(SequenceMatch(), outputs(steps), outputs(steps), label=[1, 2]) == 0
    assert score(SequenceMatch(blank=None, basis="agreement"), outputs(steps), outputs(steps)) == 1
    assert margin_of(SequenceMatch(), outputs(steps)) == 1


def corners(*lefts: float) -> np.ndarray:
    """Squares of ten by ten."""
    return np.array([[left, 0, left + 10, 10] for left in lefts], np.float64).reshape(-1, 4)


def decoded(found: Outputs) -> Boxes:
    """Boxes from outputs that are boxes."""
    return Boxes(found["y0"][:, :4], found["y0"][:, 5], found["y0"][:, 4])


def detections(*rows: tuple[float, float, float]) -> Outputs:
    """Of ``(left, score, class)``."""
    table = [[left, 0, left + 10, 10, sure, kind] for left, sure, kind in rows]
    return outputs(np.array(table).reshape(-1, 6))


def test_average_precision_is_worked_out_by_hand() -> None:
    """Hit, false alarm, hit of three wanted: precision 1 up to a third, 2/3 up to two thirds."""
    metric = BoxPrecision(decoded)
    label = Boxes(corners(0, 100, 200), np.zeros(3))
    given = detections((1, 0.9, 0), (50, 0.8, 0), (101, 0.7, 0))

    table = rows_of(metric, given, given, sample(label))

    assert metric.aggregate(table) == pytest.approx((1 + 2 / 3) / 3)


def test_a_box_is_found_once_and_only_by_its_class() -> None:
    """The second detection of a box and one of another class are false alarms."""
    metric = BoxPrecision(decoded)
    label = Boxes(corners(0, 100), np.array([0, 1]))
    given = detections((0, 0.9, 0), (1, 0.8, 0), (100, 0.7, 0))

    table = rows_of(metric, given, given, sample(label))

    assert metric.aggregate(table) == pytest.approx((1 + 0) / 2)
    assert np.count_nonzero(table[:, 2] == 1) == 1


def test_detections_of_fp32_stand_in_for_labels() -> None:
    """FP32 agrees with itself entirely; what it was not sure of is not asked for."""
    metric = BoxPrecision(decoded, "agreement")
    reference = detections((0, 0.9, 0), (100, 0.2, 0), (200, 0.8, 3))
    worse = detections((0, 0.6, 0), (100, 0.1, 0))

    assert metric.aggregate(rows_of(metric, reference, reference, sample())) == 1
    assert metric.aggregate(rows_of(metric, worse, reference, sample())) == pytest.approx(0.5)
    assert metric.aggregate(rows_of(metric, detections(), detections(), sample())) == 0


def test_without_a_metric_the_model_decides() -> None:
    """A row of scores is a classifier; of anything else the outputs are compared."""
    data = MemoryDataSet([sample(1)], "d")

    assert metric_of(data, io(1, 10)) == Top1("labels")
    assert metric_of(MemoryDataSet([sample()], "d", labelled=False), io(1, 10)) == Top1("agreement")
    assert metric_of(data, io(1, 3, 8, 8)) == OutputError()
    assert metric_of(MemoryDataSet([sample()], "d", metric=Cosine()), io(1, 10)) == Cosine()


@dataclass
class Recall:
    """A metric as a user writes it: found of wanted, over all samples."""

    name: str = "recall"
    basis: str = "labels"
    lower_is_better: bool = False
    span: float = 1.0
    raises: bool = False

    def score(self, given: Outputs, reference: Outputs, sample: Sample) -> Table:
        del reference, sample
        if self.raises:
            raise ZeroDivisionError
        return np.array([given["y0"].sum(), 2])

    def aggregate(self, table: Table) -> float:
        found, wanted = table.sum(axis=0)
        return float(found / wanted)


def test_a_metric_of_ones_own_needs_no_base_class() -> None:
    """Four attributes and two methods make a metric of a whole set."""
    metric = checked(Recall())
    scorer = Scorer(metric)
    for values in ([1, 1], [1, 0]):
        scorer.add(outputs(values), outputs(values), sample())
    answers = scorer.answers()

    assert Recall().aggregate(answers.rows(np.array([0, 1]))) == 0.75
    assert Recall().aggregate(answers.rows(np.array([1, 1, 1]))) == 0.5


@pytest.mark.parametrize(
    "metric", [object(), Recall(basis="hearsay"), Recall(span=0.0), Recall(span=float("inf"))]
)
def test_what_is_no_metric_is_refused(metric: object) -> None:
    """Before anything slow begins, and with a code."""
    with pytest.raises(BuildError) as caught:
        metric_of(MemoryDataSet([sample()], "d", metric=metric), io(1, 10))

    assert caught.value.code is BuildCode.METRIC


@dataclass
class Constant:
    """Scores every sample alike."""

    value: float
    name: str = "constant"
    basis: str = "labels"
    lower_is_better: bool = False
    span: float = 1.0

    def score(self, given: Outputs, reference: Outputs, sample: Sample) -> float:
        del given, reference, sample
        return self.value


@pytest.mark.parametrize(
    "metric", [Constant(float("nan")), Constant(-0.1), Constant(1.1), Recall(raises=True)]
)
def test_what_is_no_score_is_refused(metric: object) -> None:
    """A score outside of what the metric promised would void every bound."""
    with pytest.raises(BuildError) as caught:
        rows_of(checked(metric), outputs([1]), outputs([1]), sample())

    assert caught.value.code is BuildCode.METRIC


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        (Top1(), None),
        (Top1(), "cat"),
        (Top1(), 1.5),
        (MultiLabel(), [1, 0]),
        (AbsoluteError(1.0), "far"),
        (SequenceMatch(), "text"),
        (BoxPrecision(decoded), [0, 0, 1, 1]),
        (Top1(output="z"), 1),
    ],
)
def test_labels_that_do_not_fit_are_refused(metric: Metric, label: object) -> None:
    """Each metric says which label it wants."""
    with pytest.raises(BuildError) as caught:
        rows_of(metric, outputs([[1, 2, 3]]), outputs([[1, 2, 3]]), sample(label))

    assert caught.value.code is BuildCode.DATA_MISMATCH


def test_rows_of_another_width_are_refused() -> None:
    """What is kept of the samples has to fit below each other."""

    class Ragged(Recall):
        def score(self, given: Outputs, reference: Outputs, sample: Sample) -> Table:
            del reference, sample
            return np.ones(given["y0"].size)

    scorer = Scorer(checked(Ragged()))
    scorer.add(outputs([1, 2]), outputs([1]), sample())
    with pytest.raises(BuildError) as caught:
        scorer.add(outputs([1, 2, 3]), outputs([1]), sample())

    assert caught.value.code is BuildCode.METRIC


def test_an_answer_without_a_finite_one_to_compare_with_is_not_scored() -> None:
    """NaN from FP32 itself is for the build to report, not for the metric."""
    scorer = Scorer(OutputError())
    scorer.add(outputs([1, 2]), outputs([1, float("nan")]), sample())

    assert scorer.answers().finite.tolist() == [True]
    assert scorer.answers().lengths.tolist() == [0]


@pytest.mark.parametrize("table", [np.zeros((2, 2)), np.zeros((2, 3))])
def test_a_value_that_can_not_be_had_is_refused(table: Table) -> None:
    """An aggregate that raises, or divides by nothing, is the metric's fault, and said so."""
    with pytest.raises(BuildError) as caught, np.errstate(invalid="ignore"):
        aggregated(Recall(), table)  # type: ignore[arg-type]  # its basis is any text

    assert caught.value.code is BuildCode.METRIC


def test_an_answer_that_is_not_finite_is_not_scored() -> None:
    """NaN and infinity are remembered as such, and do not reach the metric."""
    scorer = Scorer(checked(Recall()))
    for value in (1.0, float("nan"), float("inf"), 2.0):
        scorer.add(outputs([value]), outputs([1]), sample())
    answers = scorer.answers()

    assert answers.finite.tolist() == [True, False, False, True]
    assert answers.lengths.tolist() == [1, 0, 0, 1]
    assert answers.rows(np.array([3, 1, 0])).tolist() == [[2, 2], [1, 2]]


def test_classes_and_groups_are_the_slices() -> None:
    """A group of one's own comes first; without labels there are no classes."""
    scorer = Scorer(Top1())
    for label, group in ((1, ""), (0, "night")):
        scorer.add(outputs([1, 2]), outputs([1, 2]), sample(label, group))
    agreeing = Scorer(Top1("agreement"))
    agreeing.add(outputs([1, 2]), outputs([1, 2]), sample(1))

    assert scorer.answers().groups == ("class 1", "night")
    assert agreeing.answers().groups == ("",)
