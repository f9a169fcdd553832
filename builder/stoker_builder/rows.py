"""The table of a build: one row per target and candidate, and what is known about each."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from stoker_builder.candidates.candidate import Candidate
from stoker_builder.candidates.repairs import Damage
from stoker_builder.latency.footprint import Start
from stoker_builder.latency.stats import LatencyStats
from stoker_builder.tensorrt.layers import PlanLayers
from stoker_contract.manifest import Accuracy, Fusion, Precision


class Mark(StrEnum):
    """What the gates say of a candidate."""

    REFERENCE = "REFERENCE"  # FP32: there is nothing to compare it with
    PASS = "PASS"  # noqa: S105  a verdict
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_FUSED = "NOT_FUSED"  # refused by the fusion audit, so its answers were not looked at
    SCREENED = "SCREENED"  # another candidate was better on the selection samples
    NOT_JUDGED = "NOT_JUDGED"
    SKIPPED = "SKIPPED"  # --unsafe-skip-gates


@dataclass(frozen=True, slots=True)
class Pace:
    """Latency of a candidate, and how many times faster it is than each of the others.

    Attributes:
        measured_on: the machine and the instructions it was allowed to use.
    """

    stats: LatencyStats
    vs_eager: float | None = None
    vs_eager_tuned: float | None = None
    vs_fp32: float | None = None
    vs_fp32_low: float | None = None
    measured_on: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate for one target.

    Attributes:
        path: its file; None when it could not even be made.
        why: why it is refused, in words; empty when nothing speaks against it.
        audited: the fusion audit held (always so for floating point).
        rank: 1 for the one that ships, 2 for what ships behind it for devices that lack its
            runtime, 0 for all others.
        layers: of a plan that could be loaded where it was compiled.
        damages: of its nodes, the worst first, where that was asked.
    """

    target: str
    candidate: Candidate
    path: Path | None
    size_bytes: int = 0
    mark: Mark = Mark.NOT_JUDGED
    why: str = ""
    audited: bool = True
    accuracy: Accuracy | None = None
    fusion: Fusion | None = None
    pace: Pace | None = None
    start: Start | None = None
    rank: int = 0
    layers: PlanLayers | None = None
    damages: tuple[Damage, ...] = ()

    @property
    def shipped(self) -> bool:
        """Whether it is in the release."""
        return self.rank > 0

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name

    @property
    def precision(self) -> Precision:
        """The precision of its arithmetic."""
        return self.candidate.precision
