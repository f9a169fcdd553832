"""The latency histogram: small error, exact merges."""

from math import ceil

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stoker_contract.errors import ContractError
from stoker_contract.histogram import (
    MAX_INDEX,
    Histogram,
    HistogramData,
    bucket_index,
    bucket_middle_ns,
    difference,
    quantile_ms,
    quantile_ns,
)

MAX_RELATIVE_ERROR = 0.011
latencies = st.integers(min_value=2, max_value=2**40)
samples = st.lists(latencies, min_size=1, max_size=200)


@given(values=samples, q=st.floats(min_value=0, max_value=1))
def test_a_percentile_is_off_by_at_most_1_1_percent(values: list[int], q: float) -> None:
    """Whatever the distribution and the percentile."""
    exact = sorted(values)[max(ceil(q * len(values)), 1) - 1]
    estimate = Histogram.of(values).quantile_ns(q)
    assert estimate is not None
    assert abs(estimate - exact) <= MAX_RELATIVE_ERROR * exact


@given(parts=st.lists(samples, max_size=5))
def test_merging_is_recording_everything_in_one(parts: list[list[int]]) -> None:
    """A fleet's percentile is an exact merge, never an average of percentiles."""
    merged = Histogram.merged(Histogram.of(part).data() for part in parts)
    together = Histogram.of([value for part in parts for value in part])
    assert merged.data() == together.data()
    assert merged.count == sum(map(len, parts))


@given(first=samples, later=samples)
def test_a_window_is_the_difference_of_two_snapshots(first: list[int], later: list[int]) -> None:
    """Cumulative counts give exact windows."""
    histogram = Histogram.of(first)
    earlier = histogram.data()
    for value in later:
        histogram.record(value)
    assert histogram.since(earlier) == Histogram.of(later).data()
    assert difference(earlier, earlier).count == 0


def test_a_difference_of_unrelated_histograms_is_refused() -> None:
    """A restarted server shows as an error, never as negative counts."""
    with pytest.raises(ValueError, match="snapshot"):
        difference(Histogram.of([5]).data(), Histogram.of([5, 5]).data())
    with pytest.raises(ValueError, match="snapshot"):
        difference(Histogram.of([500]).data(), Histogram.of([5]).data())


@given(value=st.integers(min_value=2, max_value=2**47))
def test_a_value_lies_within_its_bucket(value: int) -> None:
    """Bucket ``i`` holds values in ``(2**(i/32), 2**((i+1)/32)]``."""
    index = bucket_index(value)
    assert 2 ** (index / 32) <= value * (1 + 1e-12)
    assert value <= 2 ** ((index + 1) / 32) * (1 + 1e-12)
    assert abs(bucket_middle_ns(index) - value) <= MAX_RELATIVE_ERROR * value


def test_the_ends_of_the_scale_are_kept() -> None:
    """Zero, negative and absurdly long times are counted, and lose no request."""
    histogram = Histogram.of([0, -5, 1, 2**63])
    data = histogram.data()
    assert data.count == histogram.count == 4
    assert data.zero == 2
    assert quantile_ns(data, 0.5) == 0.0
    assert data.offset + len(data.counts) - 1 == MAX_INDEX


def test_an_empty_histogram_has_no_percentile() -> None:
    """No data is not zero."""
    assert quantile_ms(HistogramData(), 0.99) is None
    assert Histogram().data() == HistogramData()


def test_the_sum_is_exact() -> None:
    """The mean does not suffer from the buckets."""
    assert Histogram.of([1_000_003, 2_000_005]).data().sum_ns == 3_000_008


@pytest.mark.parametrize(
    "wire",
    [
        {"scale": 4},
        {"offset": MAX_INDEX, "counts": [1, 1]},
        {"counts": [-1]},
        {"zero": -1},
        {"offset": -1},
    ],
)
def test_a_histogram_that_can_not_be_merged_is_refused(wire: dict[str, object]) -> None:
    """Other scales, negative counts and buckets past the end never reach a merge."""
    with pytest.raises(ContractError):
        HistogramData.parse_object(wire)
