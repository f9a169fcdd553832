"""The manifest: the signed description of a release, one entry per artifact."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from stoker_contract.document import Document
from stoker_contract.enums import StrEnum
from stoker_contract.names import (
    Count,
    Milliseconds,
    PositiveInt,
    Ratio,
    Sha256,
    ShortText,
    Slug,
    TargetPath,
    Version,
)
from stoker_contract.target import ArtifactKind, Runtime, Target


class DType(StrEnum):
    """Element types, named as the Open Inference Protocol names them."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"


class Precision(StrEnum):
    """The precision most of the arithmetic runs in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class TensorSpec(Document):
    """One input or output. ``-1`` in ``shape`` is a dimension the caller chooses.

    Attributes:
        smallest: what such dimensions may be at least, as a whole shape; empty where nothing
            bounds them, or where there are none.
        largest: what they may be at most.
    """

    name: str = Field(min_length=1, max_length=128)
    dtype: DType
    shape: tuple[int, ...] = Field(max_length=8)
    smallest: tuple[Count, ...] = Field(default=(), max_length=8)
    largest: tuple[Count, ...] = Field(default=(), max_length=8)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape is one."""
        if len(shape) != len(self.shape):
            return False
        low, high = self.smallest or (0,) * len(shape), self.largest or shape
        return all(
            want in (-1, dim) and least <= dim <= most
            for want, dim, least, most in zip(self.shape, shape, low, high, strict=False)
        )

    @property
    def words(self) -> str:
        """Its shape, and the bounds of what is free in it."""
        within = f" within {list(self.smallest)} and {list(self.largest)}" if self.largest else ""
        return f"{list(self.shape)}{within}"


class EngineIO(Document):
    """The tensors an engine takes and gives."""

    inputs: tuple[TensorSpec, ...] = Field(min_length=1, max_length=64)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1, max_length=64)


Accelerator = Literal["tensorrt", "cuda"]
"""What ONNX Runtime can use besides the processor; the names are ours."""


class SessionOptions(Document):
    """Which runtime runs an artifact and how it is set up; measured by the builder.

    Attributes:
        runtime: None takes the usual one of the artifact's kind.
        float_precision: what arithmetic in floating point may be done in, where the runtime
            and the processor offer a choice. ONNX Runtime knows only ``fp32`` on a processor.
        cuda_graph: record a run once and replay it; for plans with fixed shapes only.
        accelerators: execution providers that ONNX Runtime may use before the processor, in
            this order, where a device has them.
    """

    runtime: Runtime | None = None
    float_precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    intra_op_threads: PositiveInt = 1
    parallel_runs: PositiveInt = 1
    allow_spinning: bool = False
    graph_optimisation: Literal["all", "extended", "basic", "disabled"] = "all"
    x64_quant_precision: bool = False
    cuda_graph: bool = False
    accelerators: tuple[Accelerator, ...] = Field(default=(), max_length=2)


class Limits(Document):
    """What the static scan allows before any runtime sees the file."""

    max_nodes: PositiveInt = 20_000
    max_depth: PositiveInt = 8
    max_initializer_bytes: PositiveInt = 4 * 1024**3


class Footprint(Document):
    """Memory of one loaded engine process, measured by the builder."""

    load_peak_bytes: Count = 0
    steady_bytes: Count = 0
    device_bytes: Count = 0


class Fusion(Document):
    """What the graph optimiser made of a quantised graph on its target.

    Attributes:
        basis: ``kernels`` were looked at; of a ``graph`` for a GPU that was not there it is only
            known what may be quantised at most.
    """

    quantised_mac_share: Ratio
    float_ops: tuple[ShortText, ...] = Field(default=(), max_length=256)
    transposes_added: int = 0
    basis: Literal["kernels", "graph"] = "kernels"


class SliceGuard(Document):
    """What was seen of the slices of the data that have enough samples to be looked at.

    Attributes:
        budget: what a slice may lose, as ``Accuracy.loss``.
        worst: the slice that loses most.
    """

    budget: float
    slices: PositiveInt
    worst: ShortText
    worst_loss: float
    worst_samples: PositiveInt


class Accuracy(Document):
    """The accuracy gate: what was compared, on what, and how sure it is.

    Attributes:
        reference: the metric's value for FP32, in the metric's own unit.
        candidate: the same for this artifact.
        basis: ``labels`` compares correctness on labelled samples, ``agreement``
            compares the answers with those of the FP32 reference.
        loss: how much worse the candidate is, as a fraction of ``span`` (0.01 is one point).
        loss_bound: upper one-sided bound of the loss; at ``confidence``, no lossy one of the
            ``candidates`` passes.
        gate: ``bound`` asks the bound to be below the budget, ``point`` the loss itself.
        certified_on: whose kernels answered (``native avx512_vnni``, ``qemu-x86_64 Haswell``).
        span: the range of the metric: how far apart the best and the worst value can be.
        relative: the budget was given as a share of what FP32 reaches.
        candidates: how many were judged on these samples, and share the risk of an error.
        slices: None where no slice of the data has enough samples to be looked at.
    """

    metric: ShortText
    basis: Literal["labels", "agreement", "reference"]
    reference: float
    candidate: float
    loss: float
    loss_bound: float
    budget: float
    confidence: Ratio = 0.95
    samples: Count
    gate: Literal["bound", "point", "skipped"] = "bound"
    certified_on: ShortText
    lower_is_better: bool = False
    span: float = 1.0
    relative: bool = False
    candidates: PositiveInt = 1
    slices: SliceGuard | None = None


class Latency(Document):
    """Latency on the builder, interleaved with the reference, equal threads."""

    p50_ms: Milliseconds
    p95_ms: Milliseconds
    p99_ms: Milliseconds
    samples: Count
    threads: PositiveInt
    speedup_vs_eager: float | None = None
    speedup_vs_fp32: float | None = None
    measured_on: ShortText


class Golden(Document):
    """Inputs and expected outputs that travel with an artifact.

    The file is an ``.npz`` with ``input.<name>`` and ``expected.<name>``, first axis the
    sample. A sample agrees when every output is within ``tolerance`` of what was expected
    (absolute, in the unit of the output) and, for ``argmax``, has the same largest entry.
    """

    path: TargetPath
    digest: Sha256
    length: PositiveInt
    samples: PositiveInt
    agreement: Literal["allclose", "argmax"] = "allclose"
    tolerance: float = Field(ge=0)
    min_score: Ratio = 1.0


class Artifact(Document):
    """The bytes for one target."""

    path: TargetPath
    digest: Sha256
    length: PositiveInt
    kind: ArtifactKind
    precision: Precision
    recipe: ShortText = ""
    target: Target
    io: EngineIO
    session: SessionOptions = SessionOptions()
    limits: Limits = Limits()
    footprint: Footprint = Footprint()
    golden: Golden
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    fusion: Fusion | None = None
    fallback: tuple[Sha256, ...] = ()


class Source(Document):
    """Where the release came from."""

    digest: Sha256
    opset: Count = 0
    kind: Literal["onnx", "torch"]


class DataDigest(Document):
    """Which samples took part, so that overlap can be seen later."""

    digest: Sha256
    samples: Count
    note: ShortText = ""


class Manifest(Document):
    """One release: a model at a version, for all its targets.

    Attributes:
        counter: rises with every release of the model; a device refuses one below its floor.
        min_counter: releases below this are no longer allowed once this one was seen.
        dev: made with throw-away keys or with ``--unsafe-skip-gates``; refused in production.
        preprocessing: in words, for whoever feeds the model.
    """

    schema_version: Literal[1] = 1
    model: Slug
    version: Version
    counter: PositiveInt
    min_counter: Count = 0
    artifacts: tuple[Artifact, ...] = Field(min_length=1, max_length=32)
    source: Source | None = None
    calibration: DataDigest | None = None
    selection: DataDigest | None = None
    certification: DataDigest | None = None
    preprocessing: ShortText = ""
    builder: ShortText = ""
    dev: bool = False

    @property
    def release(self) -> str:
        """``model/version``, as operators name it."""
        return f"{self.model}/{self.version}"
