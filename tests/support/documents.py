"""One full example of every document of the contract, for tests that need a valid one."""

from typing import Final

from stoker_contract import (
    control,
    desired,
    engine,
    hop,
    manifest,
    reported,
    status,
    target,
    telemetry,
)
from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.document import Document
from stoker_contract.histogram import Histogram, HistogramData

DIGEST: Final = "ab" * 32
OTHER_DIGEST: Final = "cd" * 32
TIME: Final = "2026-01-02T03:04:05Z"

HISTOGRAM = Histogram.of([0, 900, 1_000_000, 1_000_000, 7_500_000]).data()
TENSOR = manifest.TensorSpec(name="x", dtype=manifest.DType.FP32, shape=(1, 3, 224, 224))
IO = manifest.EngineIO(
    inputs=(TENSOR,),
    outputs=(manifest.TensorSpec(name="y", dtype=manifest.DType.FP32, shape=(1, 1000)),),
)
TARGET = target.Target(
    name="x86-64-vnni", arch=target.Arch.X86_64, isa=("avx2", "avx512_vnni|avx_vnni")
)
PROFILE = target.Profile(
    arch=target.Arch.X86_64,
    isa=("avx2", "avx512_vnni"),
    cores=2,
    runtimes={"onnxruntime": "1.22.0"},
    labels={"site": "berlin"},
)
GOLDEN = manifest.Golden(
    path="photos/2.0.0/vnni.golden.npz",
    digest=OTHER_DIGEST,
    length=1000,
    samples=16,
    agreement="argmax",
    tolerance=0.01,
)
ARTIFACT = manifest.Artifact(
    path="photos/2.0.0/vnni.onnx",
    digest=DIGEST,
    length=5000,
    kind=target.ArtifactKind.ONNX,
    precision=manifest.Precision.INT8,
    recipe="per-channel, percentile 99.99",
    target=TARGET,
    io=IO,
    golden=GOLDEN,
    accuracy=manifest.Accuracy.parse_object(
        {
            "metric": "top-1",
            "basis": "labels",
            "reference": 0.75,
            "candidate": 0.745,
            "samples": 400,
            "loss": 0.005,
            "loss_bound": 0.009,
            "confidence": 0.95,
            "budget": 0.01,
            "gate": "bound",
            "certified_on": "native avx512_vnni",
        }
    ),
    latency=manifest.Latency(
        p50_ms=3.0, p95_ms=3.2, p99_ms=3.5, samples=1000, threads=1, measured_on="a test"
    ),
    fusion=manifest.Fusion(quantised_mac_share=0.99, float_ops=("Gemm",)),
)
MANIFEST = manifest.Manifest(
    model="photos",
    version="2.0.0",
    counter=2,
    artifacts=(ARTIFACT,),
    source=manifest.Source(digest=DIGEST, opset=17, kind="torch"),
    calibration=manifest.DataDigest(digest=DIGEST, samples=300),
)
FILE = desired.FileRef(path=ARTIFACT.path, digest=DIGEST, length=5000)
SLOT_DESIRED = desired.SlotDesired(
    release="photos/2.0.0",
    manifest=desired.FileRef(path="photos/2.0.0/manifest.json", digest=DIGEST, length=900),
    choices=(desired.Choice(artifact=FILE, golden=FILE),),
    gates=desired.Gates(p99_ms=20.0, max_p99_ratio_vs_active=1.5),
)
DESIRED = desired.Desired(
    device="edge-1",
    fleet="demo",
    deployment_id="d-1",
    issued=TIME,
    slots={"detector": SLOT_DESIRED},
)
SPEC = engine.EngineSpec(
    digest=DIGEST,
    length=5000,
    path="/var/lib/stoker/store/sha256/" + DIGEST,
    release="photos/2.0.0",
    kind=target.ArtifactKind.ONNX,
    precision=manifest.Precision.INT8,
    io=IO,
)
ENGINE_STATUS = control.EngineStatus(digest=DIGEST, release="photos/2.0.0", pid=7)
SLOT_STATUS = control.SlotStatus(active=ENGINE_STATUS, ready=True)
RING = hop.ring_layout(IO, slots=2)
WINDOW = telemetry.LatencyWindow(slot="detector", digest=DIGEST, total=HISTOGRAM, requests=5)

EXAMPLES: Final[tuple[Document, ...]] = (
    HISTOGRAM,
    HistogramData(),
    TARGET,
    PROFILE,
    TENSOR,
    IO,
    manifest.SessionOptions(),
    manifest.Limits(),
    manifest.Footprint(load_peak_bytes=1, steady_bytes=1),
    manifest.Fusion(quantised_mac_share=0.9),
    *(part for part in (ARTIFACT.accuracy, ARTIFACT.latency) if part),
    manifest.SliceGuard(budget=0.05, slices=10, worst="class 3", worst_loss=0.02, worst_samples=61),
    GOLDEN,
    ARTIFACT,
    manifest.Source(digest=DIGEST, opset=17, kind="onnx"),
    manifest.DataDigest(digest=DIGEST, samples=300),
    MANIFEST,
    FILE,
    *SLOT_DESIRED.choices,
    SLOT_DESIRED.gates,
    SLOT_DESIRED.probation,
    SLOT_DESIRED.swap,
    SLOT_DESIRED,
    desired.Retry(),
    desired.Policy(max_bytes_per_s=1000),
    DESIRED,
    SPEC,
    engine.SlotFile(slot="detector", current=SPEC, generation=3, deployment_id="d-1"),
    control.Request(id=1, op=control.Op.LOAD, args={"slot": "detector"}),
    control.Response(id=1, code=ReasonCode.LOAD_ERROR, detail="why"),
    control.SlotOnly(slot="detector"),
    control.SlotTimeout(slot="detector"),
    control.Load(slot="detector", spec=SPEC),
    control.Loaded(digest=DIGEST, pid=7, io=IO, load_s=0.2, rss_bytes=1),
    control.Warmed(runs=30, warm_s=0.3, p50_ms=3.0),
    control.RunGolden(slot="detector", path="/var/lib/stoker/golden.npz", golden=GOLDEN),
    control.GoldenResult(
        score=1.0,
        samples=16,
        worst_error=0.001,
        latency_samples=300,
        candidate_p50_ms=3.0,
        candidate_p99_ms=4.0,
    ),
    control.Swapped(active=DIGEST, previous=OTHER_DIGEST, flip_us=40.0),
    control.Observed(
        digest=DIGEST, requests=5, errors=0, restarts=0, total=HISTOGRAM, before=HistogramData()
    ),
    control.Retire(slot="detector"),
    RING,
    hop.Start(spec=SPEC, artifact_fd=4, ring_fd=5, ring=RING),
    hop.Handshake(digest=DIGEST, pid=7, io=IO, load_s=0.2, rss_bytes=1),
    hop.Refusal(code=ReasonCode.LOAD_ERROR, detail="why"),
    control.Retired(drain_ms=3.0, dropped=0),
    ENGINE_STATUS,
    SLOT_STATUS,
    control.ServerStatus(server_id="s-1", pid=7, slots={"detector": SLOT_STATUS}),
    control.TelemetrySnapshot(server_id="s-1", engines=(WINDOW,)),
    status.Measured(download_s=1.0, dropped=0),
    status.StatusEvent(
        device="edge-1",
        deployment_id="d-1",
        generation=3,
        epoch=1,
        seq=9,
        phase=status.Phase.IDLE,
        final=True,
        outcome=Outcome.ROLLED_BACK,
        code=ReasonCode.PROBATION_LATENCY,
        stack=("probation", "detector", "p99", "PROBATION_LATENCY"),
        time=TIME,
    ),
    reported.ReportedSlot(active=DIGEST, ready=True),
    reported.Capacity(total_bytes=2, free_bytes=1),
    reported.Reported(device="edge-1", fleet="demo", epoch=1, seq=1, profile=PROFILE, time=TIME),
    reported.Refusal(sha256=DIGEST, code=ReasonCode.EXPIRED, since=TIME),
    reported.Ended(deployment_id="d-1", generation=1, outcome=Outcome.SUCCEEDED),
    reported.Presence(device="edge-1", state="online", epoch=1),
    reported.Get(device="edge-1", have_generation=0),
    reported.Notice(pause_updates=True),
    WINDOW,
    telemetry.HostFigures(cpu_percent=3.0),
    telemetry.Telemetry(device="edge-1", epoch=1, seq=1, start=TIME, end=TIME, engines=(WINDOW,)),
)
