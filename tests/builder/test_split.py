"""Calibration, selection and certification never see the same sample."""

import numpy as np
import pytest

from stoker_builder.data import MemoryDataSet, Sample, content_digest
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.split import split


def samples(count: int, *, first: int = 0) -> list[Sample]:
    """Samples that differ from each other."""
    return [
        Sample({"x": np.full((1, 4), number, dtype=np.float32)}, number % 2, f"s{number}")
        for number in range(first, first + count)
    ]


def test_the_parts_are_disjoint_and_complete() -> None:
    """A fifth calibrates, a tenth of the rest chooses, the others certify."""
    parts = split(MemoryDataSet(samples(50), "d"))

    all_parts = (parts.calibration, parts.selection, parts.certification)
    assert [len(part) for part in all_parts] == [10, 4, 36]
    assert len({digest for part in all_parts for digest in part.digests}) == 50


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (5, (1, 1, 3)),
        (20, (4, 1, 15)),
        (100, (20, 8, 72)),
        (800, (100, 70, 630)),
        (10_000, (100, 200, 9700)),
    ],
)
def test_the_sizes_are_those_of_the_table(count: int, sizes: tuple[int, ...]) -> None:
    """However small a data set, each part has something; however large, most of it certifies."""
    parts = split(MemoryDataSet(samples(count), "d"))

    assert (len(parts.calibration), len(parts.selection), len(parts.certification)) == sizes


def test_too_few_samples_are_refused() -> None:
    """Four samples can not be three parts."""
    with pytest.raises(BuildError) as caught:
        split(MemoryDataSet(samples(4), "d"))

    assert caught.value.code is BuildCode.DATA_EMPTY


def test_the_division_does_not_depend_on_the_order() -> None:
    """The same samples in another order are divided alike."""
    one = split(MemoryDataSet(samples(50), "d"))
    other = split(MemoryDataSet(samples(50)[::-1], "d"))

    assert set(one.calibration.digests) == set(other.calibration.digests)
    assert one.certification.record == other.certification.record


def test_a_sample_that_is_there_twice_counts_once() -> None:
    """Copies do not make a gate surer, and can not end up on both sides."""
    parts = split(MemoryDataSet(samples(50) + samples(5), "d"))

    assert parts.duplicates == 5
    assert len(parts.calibration) + len(parts.selection) + len(parts.certification) == 50


def test_samples_kept_apart_calibrate_and_choose() -> None:
    """A data set that brings its own for both keeps all the others for certification."""
    data = MemoryDataSet(
        samples(50), "d", calibration=samples(20, first=100), selection=samples(9, first=200)
    )
    parts = split(data, calibration_samples=8)

    assert len(parts.calibration) == 8
    assert len(parts.selection) == 9
    assert len(parts.certification) == 50


def test_overlap_is_refused_by_content() -> None:
    """The same pixels under another name are the same sample."""
    data = MemoryDataSet(samples(50), "d", calibration=samples(3, first=49))

    with pytest.raises(BuildError) as caught:
        split(data)

    assert caught.value.code is BuildCode.CALIBRATION_OVERLAP
    assert "1 samples" in caught.value.detail


def test_overlap_of_what_is_kept_apart_is_refused() -> None:
    """What calibrates does not choose either."""
    data = MemoryDataSet(
        samples(50), "d", calibration=samples(5, first=100), selection=samples(5, first=104)
    )

    with pytest.raises(BuildError) as caught:
        split(data)

    assert caught.value.code is BuildCode.CALIBRATION_OVERLAP
    assert "for calibration and for selection" in caught.value.detail


def test_fewer_can_certify_on_request() -> None:
    """A limit takes the same samples every time."""
    one, other = (split(MemoryDataSet(samples(50), "d"), certification_samples=7) for _ in "ab")

    assert len(one.certification) == 7
    assert one.certification.indices == other.certification.indices


def test_the_digest_is_of_what_the_model_sees() -> None:
    """Type, shape, name and value count; label and key do not."""
    base = samples(1)[0]
    same = Sample(base.inputs, 1, "renamed")
    x = base.inputs["x"]
    others = ({"x": x + 1}, {"y": x}, {"x": x.astype(np.float64)}, {"x": x.reshape(2, 2)})

    assert content_digest(same) == content_digest(base)
    digests = {content_digest(Sample(inputs, 0, "s")) for inputs in others}
    assert len(digests | {content_digest(base)}) == 5
