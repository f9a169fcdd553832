"""What a build has found out so far, and what it ends with."""

from dataclasses import dataclass, field
from pathlib import Path

from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.candidates.audit import Audit
from stoker_builder.data import DataSet
from stoker_builder.latency.candidates import Timings
from stoker_builder.latency.machine import Machine
from stoker_builder.metrics import Metric, Top1
from stoker_builder.models.source import Inputs, SourceModel
from stoker_builder.report.document import Report
from stoker_builder.request import BuildRequest
from stoker_builder.rows import Row
from stoker_builder.split import Split
from stoker_builder.targets import TargetSpec
from stoker_contract.manifest import Manifest


@dataclass(slots=True)
class Bench:
    """Everything a build has found out so far.

    Attributes:
        files: the ONNX file of every candidate that could be made.
        failures: why a candidate could not be made.
        audits: what the optimiser made of each file.
        answers: to the certification samples, with this machine's kernels.
    """

    request: BuildRequest
    targets: tuple[TargetSpec, ...]
    data: DataSet
    example: Inputs
    scratch: Path
    machine: Machine
    source: SourceModel
    split: Split
    metric: Metric
    files: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    audits: dict[str, Audit] = field(default_factory=dict)
    answers: dict[str, Answers] = field(default_factory=dict)
    timings: Timings | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def classifies(self) -> bool:
        """Whether the largest entry of the first output is the answer."""
        return isinstance(self.metric, Top1) and self.metric.output is None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build."""

    manifest: Manifest
    rows: tuple[Row, ...]
    timings: Timings
    split: Split
    machine: Machine
    report: Report
    output: Path
    data_note: str = ""
