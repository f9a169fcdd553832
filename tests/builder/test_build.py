"""A build from end to end: what ships, what is refused and why, and what is in the folder."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from stoker_builder.bench import BuildResult
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.judging import NOT_MEASURABLE, NOT_TIMED
from stoker_builder.kernels.isa import host_isa
from stoker_builder.latency.candidates import UNOPTIMISED
from stoker_builder.latency.torch_routes import DEFAULT_ROUTES
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.rows import Mark, Row
from stoker_contract.manifest import Manifest, Precision
from stoker_contract.target import Runtime
from stoker_engine.backends import open_engine
from support.tiny_build import MODELS, request_for

HAS_VNNI = bool({"avx512_vnni", "avx_vnni"} & host_isa())
needs_vnni = pytest.mark.skipif(not HAS_VNNI, reason="this processor has no VNNI")

needs_compiler = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "objdump"))), reason="the cap needs gcc and objdump"
)


def row(result: BuildResult, target: str, candidate: str) -> Row:
    """One row of the table."""
    return next(r for r in result.rows if (r.target, r.name) == (target, candidate))


def test_every_target_has_an_artifact_that_needs_no_second_runtime(built: BuildResult) -> None:
    """Each target ships one winner, and one for ONNX Runtime alone when the winner is not."""
    for target in ("x86-64-v3", "x86-64-vnni"):
        shipped = sorted(
            (r for r in built.rows if r.target == target and r.shipped), key=lambda r: r.rank
        )
        promised = [a for a in built.manifest.artifacts if a.target.name == target]

        assert [a.session for a in promised] == [r.candidate.session for r in shipped]
        assert shipped[-1].candidate.runtime is Runtime.ONNXRUNTIME
        assert len({a.digest for a in promised}) == len(promised)


def test_every_runtime_has_its_fp32(built: BuildResult) -> None:
    """OpenVINO's is a candidate of its own, though it is the same file."""
    for target in ("x86-64-v3", "x86-64-vnni"):
        own = row(built, target, "fp32-openvino")
        if own.why != NOT_TIMED:  # a target with VNNI, on a processor without
            assert own.pace is not None or own.why.startswith(NOT_MEASURABLE)
            assert own.mark is not Mark.NOT_JUDGED


def test_the_manifest_is_one_a_device_accepts(built: BuildResult) -> None:
    """The file reads back as the contract says, and is the one that was returned."""
    manifest = Manifest.parse((built.output / "manifest.json").read_bytes())

    assert manifest == built.manifest
    assert manifest.release == "tiny/1.0.0"
    assert manifest.preprocessing == "noise on four patterns"
    assert not manifest.dev


def test_every_digest_of_the_manifest_is_that_of_a_file(built: BuildResult) -> None:
    """Artifacts and golden sets are in the folder, byte for byte as promised."""
    for artifact in built.manifest.artifacts:
        for promised in (artifact, artifact.golden):
            data = (built.output / promised.path.rpartition("/")[2]).read_bytes()
            assert len(data) == promised.length
            assert hashlib.sha256(data).hexdigest() == promised.digest


def test_the_folder_holds_nothing_else(built: BuildResult) -> None:
    """No scratch files are left, neither in the folder nor beside it."""
    named = {
        promised.path.rpartition("/")[2]
        for artifact in built.manifest.artifacts
        for promised in (artifact, artifact.golden)
    }

    assert {p.name for p in built.output.iterdir()} == named | {
        "manifest.json",
        "report.json",
        "report.md",
        "report.html",
    }
    assert [p.name for p in built.output.parent.iterdir()] == [built.output.name]


def test_the_golden_set_is_what_the_artifact_answers(built: BuildResult) -> None:
    """Each shipped artifact, run by the engine that ships, agrees with its golden set."""
    for artifact in built.manifest.artifacts:
        path = built.output / artifact.path.rpartition("/")[2]
        engine = open_engine(str(path), artifact.kind, artifact.session)
        assert engine.io == artifact.io
        golden = np.load(built.output / artifact.golden.path.rpartition("/")[2], allow_pickle=False)
        assert len(golden["input.x"]) == artifact.golden.samples >= 16
        for inputs, expected in zip(golden["input.x"], golden["expected.output"], strict=True):
            (output,) = engine.run({"x": inputs}, ["output"])
            assert np.abs(output - expected).max() <= artifact.golden.tolerance
            assert output.argmax() == expected.argmax()


def test_golden_answers_are_not_turned_by_rounding(built: BuildResult) -> None:
    """No golden sample is so close a call that the tolerance could change its winner."""
    for artifact in built.manifest.artifacts:
        golden = np.load(built.output / artifact.golden.path.rpartition("/")[2], allow_pickle=False)
        for expected in golden["expected.output"]:
            second, first = np.partition(expected.reshape(-1), -2)[-2:]
            assert first - second > 2 * artifact.golden.tolerance


def test_the_parts_of_the_data_are_disjoint_and_recorded(built: BuildResult) -> None:
    """Nothing that calibrated or chose certifies, and the manifest knows what certified."""
    parts = (built.split.calibration, built.split.selection, built.split.certification)
    digests = [digest for part in parts for digest in part.digests]

    assert len(digests) == len(set(digests)) == 700
    assert [len(part) for part in parts] == [100, 60, 540]
    assert built.manifest.certification == built.split.certification.record


def test_the_staircase_starts_at_pytorch_as_it_comes(built: BuildResult) -> None:
    """Eager is timed twice, with its own and with a tuned allocator, beside the plain graph."""
    assert {*DEFAULT_ROUTES, UNOPTIMISED, "fp32"} <= set(built.timings.stats)


@needs_vnni
@needs_compiler
@pytest.mark.parametrize("candidate", ["int8-pairs", "int8-pairs-openvino"])
def test_int8_is_certified_with_the_instructions_of_the_target(
    built: BuildResult, candidate: str
) -> None:
    """Each runtime takes this machine for one with AVX2 only, and is judged and timed as that."""
    capped = row(built, "x86-64-v3", candidate)

    assert capped.pace is not None
    assert "capped at AVX2" in capped.pace.measured_on
    assert capped.accuracy is not None
    if capped.mark is not Mark.SCREENED:
        assert "capped at AVX2" in capped.accuracy.certified_on


def test_memory_is_measured(built: BuildResult) -> None:
    """The footprint is that of a whole engine process."""
    for artifact in built.manifest.artifacts:
        assert 10_000_000 < artifact.footprint.steady_bytes <= artifact.footprint.load_peak_bytes


def certified(result: BuildResult, target: str) -> list[Row]:
    """The quantised rows that passed; which ones get to the final depends on their speed."""
    return [
        r
        for r in result.rows
        if r.target == target and r.precision is Precision.INT8 and r.mark is Mark.PASS
    ]


@needs_vnni
def test_int8_is_judged_with_the_kernels_of_the_target(built: BuildResult) -> None:
    """With VNNI, whatever else there is, the finalists for it are certified and pass here."""
    for candidate in (passed := certified(built, "x86-64-vnni")):
        assert candidate.accuracy is not None
        on = candidate.accuracy.certified_on.lower()
        assert "vnni" in on or "amx" in on
        assert candidate.accuracy.samples == len(built.split.certification)
        assert candidate.fusion is not None
        assert candidate.fusion.quantised_mac_share >= 0.9
        assert candidate.pace is not None
    assert passed


@needs_vnni
@pytest.mark.usefixtures("no_compiler")
def test_fp32_ships_where_int8_can_not_be_measured(tmp_path: Path, tiny_onnx: Path) -> None:
    """Without a compiler, ONNX Runtime ships FP32 for processors without VNNI, and says so."""
    request = request_for(
        tmp_path / "release",
        model=str(tiny_onnx),
        targets=("x86-64-v3",),
        runtimes=(Runtime.ONNXRUNTIME,),
    )
    result = build(request, Silence())

    assert row(result, "x86-64-v3", "fp32").shipped
    refused = row(result, "x86-64-v3", "int8-mixed")
    assert refused.pace is None
    assert refused.mark is Mark.NOT_FUSED or refused.why.startswith(NOT_MEASURABLE)
    (artifact,) = result.manifest.artifacts
    assert artifact.accuracy is not None
    assert "not executed on x86-64-v3" in artifact.accuracy.certified_on
    assert artifact.latency is None


@needs_vnni
def test_weights_per_tensor_are_refused_where_they_lose(
    tmp_path: Path, wild_channel_onnx: Path
) -> None:
    """One wild channel: weights per channel pass, per tensor the gate refuses with the loss."""
    request = request_for(
        tmp_path / "release", model=str(wild_channel_onnx), targets=("x86-64-vnni",)
    )
    result = build(request, Silence())

    assert certified(result, "x86-64-vnni")
    refused = row(result, "x86-64-vnni", "int8-pertensor")
    assert refused.mark is Mark.FAIL
    assert refused.accuracy is not None
    assert refused.accuracy.loss > 0.1
    assert "over the budget of 1.00 pp" in refused.why
    assert not refused.shipped


@needs_vnni
def test_fp32_ships_when_no_int8_passes(tmp_path: Path, wild_activations_onnx: Path) -> None:
    """Activations that eight bits can not hold: INT8 lost, and that is a normal outcome."""
    request = request_for(
        tmp_path / "release", model=str(wild_activations_onnx), targets=("x86-64-vnni",)
    )
    result = build(request, Silence())

    assert {a.precision for a in result.manifest.artifacts} == {"fp32"}
    assert row(result, "x86-64-vnni", "int8-perchannel").mark is Mark.FAIL


@needs_vnni
def test_skipping_the_gates_stamps_the_release(tmp_path: Path, wild_activations_onnx: Path) -> None:
    """An unjudged release says so, so that a production device can refuse it."""
    request = request_for(
        tmp_path / "release",
        model=str(wild_activations_onnx),
        targets=("x86-64-vnni",),
        unsafe_skip_gates=True,
    )
    manifest = build(request, Silence()).manifest

    assert manifest.dev
    assert manifest.artifacts[0].precision == "int8"
    assert manifest.artifacts[0].accuracy is not None
    assert manifest.artifacts[0].accuracy.gate == "skipped"


def test_fp32_on_request_makes_nothing_else(tmp_path: Path, tiny_onnx: Path) -> None:
    """``--precision fp32`` builds no INT8 candidates at all."""
    request = request_for(
        tmp_path / "release",
        model=str(tiny_onnx),
        precision="fp32",
        runtimes=(Runtime.ONNXRUNTIME,),
    )
    result = build(request, Silence())

    assert {r.precision for r in result.rows} == {"fp32"}
    # one file for both targets, each with a golden set of its own
    assert len({a.path for a in result.manifest.artifacts}) == 1
    assert len({a.golden.path for a in result.manifest.artifacts}) == 2


def test_without_labels_answers_are_compared(tmp_path: Path, tiny_onnx: Path) -> None:
    """Where nobody knows the answers, the metric says that it is agreement."""
    request = request_for(tmp_path / "release", model=str(tiny_onnx), data=f"{MODELS}:unlabelled")
    result = build(request, Silence())

    metrics = {r.accuracy.metric for r in result.rows if r.accuracy is not None}
    assert metrics == {"top-1 agreement with FP32"}


@needs_vnni
def test_a_model_that_does_not_classify_may_be_int8_too(tmp_path: Path) -> None:
    """Without a metric its outputs are compared with FP32's, and the manifest says so."""
    request = request_for(
        tmp_path / "release", model=f"{MODELS}:feature_map", targets=("x86-64-vnni",)
    )
    result = build(request, Silence())

    passed = [r for r in result.rows if r.mark is Mark.PASS and r.precision == "int8"]
    candidate = passed[0]
    assert candidate.accuracy is not None
    assert candidate.accuracy.metric == "squared error against FP32's outputs"
    assert candidate.accuracy.basis == "agreement"
    assert candidate.accuracy.lower_is_better
    assert 0 < candidate.accuracy.candidate < 0.01
    assert {a.golden.agreement for a in result.manifest.artifacts} == {"allclose"}


def test_the_report_is_for_machines_too(built: BuildResult) -> None:
    """The JSON report names every candidate with its verdict."""
    report = json.loads((built.output / "report.json").read_bytes())

    assert report["release"] == "tiny/1.0.0"
    assert len(report["candidates"]) == len(built.rows)
    assert "## x86-64-v3\n\nShips **" in (built.output / "report.md").read_text()


def test_a_release_is_not_written_over_another(tmp_path: Path, tiny_onnx: Path) -> None:
    """Another version in the output folder stops the build before the slow work."""
    request = request_for(
        tmp_path / "release", model=str(tiny_onnx), precision="fp32", targets=("x86-64-v3",)
    )
    build(request, Silence())
    before = (tmp_path / "release" / "manifest.json").read_bytes()

    with pytest.raises(BuildError) as caught:
        build(request_for(tmp_path / "release", version="2.0.0"), Silence())

    assert caught.value.code is BuildCode.OUTPUT_EXISTS
    assert (tmp_path / "release" / "manifest.json").read_bytes() == before


def test_a_device_is_offered_the_most_special_target_first(built: BuildResult) -> None:
    """A VNNI device also fits the general target, and must not end up with its slower artifact."""
    names = [a.target.name for a in built.manifest.artifacts]
    assert list(dict.fromkeys(names)) == ["x86-64-vnni", "x86-64-v3"]


def test_no_artifact_is_bound_to_the_instructions_it_was_built_on(built: BuildResult) -> None:
    """What ships is the plain graph, for the device to optimise: optimised here, it may lie there.

    A graph saved after optimisation has its weights in blocks as wide as this processor's
    registers, and operators of ONNX Runtime's own; elsewhere it answers wrongly, in silence.
    """
    for artifact in built.manifest.artifacts:
        model = onnx.load(built.output / artifact.path.rpartition("/")[2])
        bound = {f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain}
        assert not bound
        assert artifact.session.graph_optimisation == "all"
