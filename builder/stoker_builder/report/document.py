"""The report of a build as a document: everything that was measured, and why what was decided.

``report.json`` in a release folder is this. All other forms (the table on the terminal,
Markdown, the page with the plots) are drawn from it, so that they can be drawn again later and
elsewhere, and can say nothing that it does not.
"""

from typing import Annotated, Literal

from pydantic import Field

from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.rows import Mark
from stoker_builder.tensorrt.layers import PlanLayers
from stoker_contract.document import Document
from stoker_contract.manifest import Accuracy, Artifact, DataDigest, Fusion
from stoker_contract.names import Count, Milliseconds, PositiveInt, Ratio

MAX_BYTES = 8 * 1024 * 1024

Text = Annotated[str, Field(max_length=4096)]
Name = Annotated[str, Field(max_length=256)]


class Figures(Document):
    """Latency of one variant, and how sure each figure is.

    Attributes:
        p99_high_ms: as the other bounds: an order statistic at 95 %; absent where there are too
            few samples for one.
        quantiles_ms: of all samples, in equal steps from the fastest to the slowest.
        contaminated_share: share of the samples taken while others used the processor.
    """

    p50_ms: Milliseconds
    p95_ms: Milliseconds
    p99_ms: Milliseconds
    min_ms: Milliseconds
    samples: Count
    p50_low_ms: Milliseconds | None = None
    p50_high_ms: Milliseconds | None = None
    p95_low_ms: Milliseconds | None = None
    p95_high_ms: Milliseconds | None = None
    p99_low_ms: Milliseconds | None = None
    p99_high_ms: Milliseconds | None = None
    contaminated_share: Ratio = 0.0
    quantiles_ms: tuple[Milliseconds, ...] = ()


class Compared(Figures):
    """Latency of a candidate, and how many times faster it is than each of the others."""

    vs_eager: float | None = None
    vs_eager_tuned: float | None = None
    vs_fp32: float | None = None
    vs_fp32_low: float | None = None
    measured_on: Name = ""


class Start(Document):
    """What starting costs, in processes of their own.

    Attributes:
        load_ms: until the runtime has the model ready; the file is in the page cache.
        first_run_ms: the first answer after that.
        load_peak_bytes: the most memory that the process ever had.
        steady_bytes: after some runs.
    """

    load_ms: Milliseconds
    first_run_ms: Milliseconds
    load_peak_bytes: Count
    steady_bytes: Count


class LayerDamage(Document):
    """What quantising one layer alone does to the answers, in the unit of the search."""

    name: Name
    op_type: Name
    damage: float


class Candidate(Document):
    """One row of the table: a candidate for a target.

    Attributes:
        rank: 1 for the one that ships, 2 for what ships behind it for devices that lack its
            runtime, 0 for all others.
        layers: of a plan, where a GPU was there to look at it.
    """

    target: Name
    candidate: Name
    precision: Name
    verdict: Mark
    runtime: Name = ""
    shipped: bool = False
    rank: Count = 0
    why: Text = ""
    size_bytes: Count = 0
    accuracy: Accuracy | None = None
    fusion: Fusion | None = None
    latency: Compared | None = None
    start: Start | None = None
    layers: PlanLayers | None = None
    sensitivity: tuple[LayerDamage, ...] = ()


class Baseline(Document):
    """Something that the candidates are compared with, of the same interleaved run."""

    name: Name
    title: Name
    measured_on: Name = ""
    latency: Figures


class ConditionNotes(Document):
    """What the machine did while latency was measured, see :mod:`latency.conditions`.

    Attributes:
        threads: of each run that was timed.
        refusals: why the figures must not be quoted; empty when they may.
    """

    threads: PositiveInt = 1
    busy_share: Ratio = 0.0
    spin_drift: float | None = None
    throttle_events: Count | None = None
    temperature_c: float | None = None
    frequency_mhz: tuple[float, float] | None = None
    governor: Name | None = None
    refusals: tuple[Text, ...] = ()


class Throughput(Document):
    """One way to use the cores: so many runs at once, with so many threads each."""

    threads: PositiveInt
    parallel: PositiveInt
    p50_ms: Milliseconds
    p99_ms: Milliseconds
    per_second: float


class TargetProfile(Document):
    """Of the artifact that ships for one target: where its time goes, and how it scales."""

    target: Name
    before: OperatorProfile | None = None
    after: OperatorProfile | None = None
    throughput: tuple[Throughput, ...] = ()


class SourceNotes(Document):
    """Where the model came from."""

    kind: Name
    digest: Name
    notes: tuple[Text, ...] = ()


class DataNotes(Document):
    """What it was calibrated and certified on."""

    name: Text
    note: Text = ""
    labelled: bool
    preprocessing: Text = ""
    calibration: DataDigest
    certification: DataDigest
    selection: DataDigest | None = None
    duplicates_left_out: Count = 0


class GateNotes(Document):
    """What had to hold.

    Attributes:
        budget: as a fraction of the metric's span, or of what FP32 reaches if ``relative``.
        slice_budget: what any one slice of the data may lose, as a fraction of the span.
    """

    metric: Name
    basis: Name = ""
    budget: float
    relative: bool = False
    slice_budget: float | None = None
    gate: Literal["bound", "point"]
    confidence: Ratio
    skipped: bool = False


class MachineNotes(Document):
    """The machine that measured, without anything about its owner."""

    cpu_model: Name
    arch: Name
    isa: tuple[Name, ...] = ()
    cores: Count
    memory_bytes: Count
    kernel: Name = ""
    python: Name = ""
    runtimes: dict[str, str] = Field(default_factory=dict)
    summary: Name = ""


class Report(Document):
    """The whole report."""

    schema_version: Literal[1] = 1
    release: Name
    counter: Count
    dev: bool = False
    builder: Name = ""
    machine: MachineNotes
    source: SourceNotes
    data: DataNotes
    gates: GateNotes
    conditions: ConditionNotes = ConditionNotes()
    baselines: tuple[Baseline, ...] = ()
    candidates: tuple[Candidate, ...]
    artifacts: tuple[Artifact, ...] = ()
    profiles: tuple[TargetProfile, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)

    @property
    def targets(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(dict.fromkeys(row.target for row in self.candidates))

    def rows_of(self, target: str) -> tuple[Candidate, ...]:
        """The candidates for one target."""
        return tuple(row for row in self.candidates if row.target == target)

    def shipped_for(self, target: str) -> Candidate | None:
        """What ships for a target, to the devices that have its runtime."""
        return next(iter(self.all_shipped_for(target)), None)

    def all_shipped_for(self, target: str) -> tuple[Candidate, ...]:
        """Everything that ships for a target, the preferred first."""
        shipped = [row for row in self.rows_of(target) if row.shipped]
        return tuple(sorted(shipped, key=lambda row: row.rank))
