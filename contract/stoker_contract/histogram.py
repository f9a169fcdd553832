"""Latency histograms: base-2 exponential buckets at scale 5, as OpenTelemetry lays them out.

Bucket ``i`` holds values in ``(2**(i/32), 2**((i+1)/32)]`` nanoseconds: 2.2 % wide, so a
percentile read from the middle is off by at most 1.1 %. Merging adds vectors, so percentiles of
a fleet are exact merges and never averages of percentiles.
"""

from collections.abc import Iterable
from math import ceil, log2
from typing import Final

from pydantic import Field, model_validator
from typing_extensions import Self

from stoker_contract.document import Document
from stoker_contract.names import Count

SCALE: Final = 5
BUCKETS_PER_OCTAVE: Final = 2**SCALE
MAX_INDEX: Final = 48 * BUCKETS_PER_OCTAVE  # 2**48 ns is over three days
NS_PER_MS: Final = 1_000_000


class HistogramData(Document):
    """A histogram on the wire: counts from bucket ``offset`` on, values in nanoseconds."""

    scale: int = Field(default=SCALE, ge=SCALE, le=SCALE)
    zero: Count = 0
    offset: int = Field(default=0, ge=0, le=MAX_INDEX)
    counts: tuple[Count, ...] = Field(default=(), max_length=MAX_INDEX + 1)
    sum_ns: Count = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.offset + len(self.counts) > MAX_INDEX + 1:
            msg = "counts reach past the last bucket"
            raise ValueError(msg)
        return self

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return self.zero + sum(self.counts)


class Histogram:
    """A histogram that is being filled. Not thread-safe: one owner records."""

    __slots__ = ("_counts", "sum_ns", "zero")

    def __init__(self) -> None:
        self._counts = [0] * (MAX_INDEX + 1)
        self.zero = 0
        self.sum_ns = 0

    @classmethod
    def of(cls, values_ns: Iterable[int]) -> "Histogram":
        """A histogram of given values in nanoseconds."""
        histogram = cls()
        for value in values_ns:
            histogram.record(value)
        return histogram

    @classmethod
    def merged(cls, parts: Iterable[HistogramData]) -> "Histogram":
        """The exact merge of histograms."""
        histogram = cls()
        for part in parts:
            histogram.add(part)
        return histogram

    def record(self, value_ns: int) -> None:
        """Count one value in nanoseconds; what is not positive counts as zero."""
        if value_ns <= 0:
            self.zero += 1
            return
        self.sum_ns += value_ns
        self._counts[bucket_index(value_ns)] += 1

    def add(self, data: HistogramData) -> None:
        """Add another histogram to this one."""
        self.zero += data.zero
        self.sum_ns += data.sum_ns
        for index, count in enumerate(data.counts, start=data.offset):
            self._counts[index] += count

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return self.zero + sum(self._counts)

    def data(self) -> HistogramData:
        """What was recorded so far, as it goes over the wire."""
        used = [index for index, count in enumerate(self._counts) if count]
        if not used:
            return HistogramData(zero=self.zero, sum_ns=self.sum_ns)
        first, last = used[0], used[-1]
        return HistogramData(
            zero=self.zero,
            offset=first,
            counts=tuple(self._counts[first : last + 1]),
            sum_ns=self.sum_ns,
        )

    def since(self, earlier: HistogramData) -> HistogramData:
        """What was recorded since ``earlier``, a former snapshot of this histogram."""
        return difference(self.data(), earlier)

    def quantile_ns(self, q: float) -> float | None:
        """The value below which a share ``q`` lies, in nanoseconds; None when empty."""
        return quantile_ns(self.data(), q)


def bucket_index(value_ns: int) -> int:
    """The bucket that a positive number of nanoseconds belongs to."""
    if value_ns <= 1:
        return 0
    return min(max(ceil(log2(value_ns) * BUCKETS_PER_OCTAVE) - 1, 0), MAX_INDEX)


def bucket_middle_ns(index: int) -> float:
    """The geometric middle of a bucket, in nanoseconds."""
    return float(2.0 ** ((index + 0.5) / BUCKETS_PER_OCTAVE))


def quantile_ns(data: HistogramData, q: float) -> float | None:
    """The value below which a share ``q`` of the values lies, in nanoseconds; None when empty."""
    total = data.count
    if total == 0:
        return None
    rank = min(max(ceil(q * total), 1), total)
    seen = data.zero
    if rank <= seen:
        return 0.0
    for index, count in enumerate(data.counts, start=data.offset):
        seen += count
        if seen >= rank:
            return bucket_middle_ns(index)
    return bucket_middle_ns(data.offset + len(data.counts) - 1)


def quantile_ms(data: HistogramData, q: float) -> float | None:
    """As :func:`quantile_ns`, in milliseconds."""
    value = quantile_ns(data, q)
    return None if value is None else value / NS_PER_MS


def difference(later: HistogramData, earlier: HistogramData) -> HistogramData:
    """``later`` minus ``earlier``, two snapshots of one histogram.

    Raises:
        ValueError: ``earlier`` is not an earlier snapshot of the same histogram.
    """
    counts = dict(enumerate(later.counts, start=later.offset))
    for index, count in enumerate(earlier.counts, start=earlier.offset):
        counts[index] = counts.get(index, 0) - count
    zero, sum_ns = later.zero - earlier.zero, later.sum_ns - earlier.sum_ns
    if zero < 0 or sum_ns < 0 or any(count < 0 for count in counts.values()):
        msg = "not an earlier snapshot of the same histogram"
        raise ValueError(msg)
    used = [index for index, count in counts.items() if count]
    if not used:
        return HistogramData(zero=zero, sum_ns=sum_ns)
    first, last = min(used), max(used)
    filled = tuple(counts.get(index, 0) for index in range(first, last + 1))
    return HistogramData(zero=zero, offset=first, counts=filled, sum_ns=sum_ns)
