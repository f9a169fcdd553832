"""The table of a build: one row per target and candidate, and what is known about each."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from stoker_builder.candidates.recipes import FP32
from stoker_builder.latency.footprint import Start
from stoker_builder.latency.stats import LatencyStats
from stoker_contract.manifest import Accuracy, Fusion, Precision


class Mark(StrEnum):
    """What the gates say of a candidate."""

    REFERENCE = "REFERENCE"  # FP32: there is nothing to compare it with
    PASS = "PASS"  # noqa: S105  a verdict
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_FUSED = "NOT_FUSED"  # refused by the fusion audit, so its answers were not looked at
    NOT_JUDGED = "NOT_JUDGED"
    SKIPPED = "SKIPPED"  # --unsafe-skip-gates


@dataclass(frozen=True, slots=True)
class Pace:
    """Latency of a candidate, and how many times faster it is than each of the others."""

    stats: LatencyStats
    vs_eager: float | None = None
    vs_eager_tuned: float | None = None
    vs_fp32: float | None = None
    vs_fp32_low: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate for one target.

    Attributes:
        path: its file; None when it could not even be made.
        why: why it is refused, in words; empty when nothing speaks against it.
        audited: the fusion audit held (always so for FP32).
    """

    target: str
    candidate: str
    path: Path | None
    size_bytes: int = 0
    mark: Mark = Mark.NOT_JUDGED
    why: str = ""
    audited: bool = True
    accuracy: Accuracy | None = None
    fusion: Fusion | None = None
    pace: Pace | None = None
    start: Start | None = None
    shipped: bool = False

    @property
    def precision(self) -> Precision:
        """The precision of its arithmetic."""
        return Precision.FP32 if self.candidate == FP32 else Precision.INT8
