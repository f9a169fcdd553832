"""Instruction sets: what this machine has, and whose kernels answered."""

import subprocess
from itertools import repeat
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.cap import LEVEL, CapError, CappedRuntime, capped_runtime
from stoker_builder.kernels.engines import EngineChild
from stoker_builder.kernels.isa import (
    IsaRunner,
    best_kernels,
    host_isa,
    target_runs_here,
    target_runs_natively,
)
from stoker_builder.kernels.places import (
    AVX2_CAP,
    AVX512_CAP,
    BF16_CAP,
    VNNI_CAP,
    Place,
    Way,
    place_for,
)
from stoker_builder.targets import load_target
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Arch, Runtime, Target

V3 = Target(name="x86-64-v3", arch=Arch.X86_64, isa=("avx2", "fma"))
VNNI = Target(name="x86-64-vnni", arch=Arch.X86_64, isa=("avx2", "avx512_vnni|avx_vnni"))
AVX512 = Target(name="skylake-x", arch=Arch.X86_64, isa=("avx2", "avx512f"))
BF16 = load_target("x86-64-bf16").target
AMX = load_target("x86-64-amx").target
TILES = Target(name="tiles", arch=Arch.X86_64, isa=("avx2", "amx_int8"))
ARM = Target(name="aarch64-dotprod", arch=Arch.AARCH64, isa=("asimddp",))

CPUINFO = {
    "haswell": "processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2 fma bmi1 bmi2 f16c\n",
    "alder lake n": "flags\t\t: avx avx2 fma avx_vnni\nbugs\t\t: spectre_v1\n",
    "sapphire rapids": "flags\t: avx avx2 fma avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16\n",
    "zen 5": "flags : avx avx2 fma avx512f avx512_vnni\n" * 2,
    "skylake x": "flags\t\t: avx avx2 fma avx512f avx512bw\n",
    "sandy bridge": "flags\t\t: fpu sse4_2 avx\n",
    "orin": "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n",
    "big little": "Features\t: fp asimd asimddp i8mm\nFeatures\t: fp asimd asimddp\n",
}


def isa_of(machine: str) -> frozenset[str]:
    """Read one of the samples above."""
    return host_isa(CPUINFO[machine])


@pytest.fixture
def saturating_model(tmp_path: Path) -> Path:
    """A product of bytes whose pairs of sums do not fit sixteen bits."""
    weights = np.full((8, 16), 127, dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "saturating",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])],
        [helper.make_tensor("w", TensorProto.INT8, weights.shape, weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "saturating.onnx"
    onnx.save(model, path)
    return path


def bytes_of(value: int) -> dict[str, NDArray[np.generic]]:
    """Make an input full of one byte."""
    return {"x": np.full((1, 8), value, dtype=np.uint8)}


def emulated(time_budget_s: float = 60.0, jobs: int = 1) -> IsaRunner:
    """Make a runner for processors without VNNI, or skip and say why there is none."""
    runner = IsaRunner(V3, time_budget_s=time_budget_s, jobs=jobs)
    if runner.unavailable is not None:
        pytest.skip(runner.unavailable)
    return runner


def test_features_are_read_as_the_kernel_spells_them() -> None:
    """Both spellings of the line count, x86 and ARM, and other lines do not."""
    assert "avx_vnni" in isa_of("alder lake n")
    assert "spectre_v1" not in isa_of("alder lake n")
    assert "asimddp" in isa_of("orin")
    assert host_isa("") == frozenset()


def test_only_what_all_cores_have_is_promised() -> None:
    """A board with two kinds of cores has what both kinds have."""
    assert isa_of("big little") == {"fp", "asimd", "asimddp"}


def test_this_machine_has_features() -> None:
    """The real file is understood."""
    assert host_isa()


@pytest.mark.parametrize(
    ("machine", "target", "runs", "natively"),
    [
        ("haswell", V3, True, True),
        ("haswell", VNNI, False, False),
        ("alder lake n", VNNI, True, True),
        ("zen 5", VNNI, True, True),
        # It runs there, but its sums do not saturate as those of a Haswell do.
        ("zen 5", V3, True, False),
        ("alder lake n", V3, True, False),
        ("skylake x", V3, True, True),
        ("sandy bridge", V3, False, False),
    ],
)
def test_running_is_not_certifying(
    machine: str, target: Target, *, runs: bool, natively: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor with more than a target asks for runs it, and proves nothing about it."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")

    assert target_runs_here(target, isa_of(machine)) == runs
    assert target_runs_natively(target, isa_of(machine)) == natively


def test_another_architecture_never_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features with the same name on another architecture do not help."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")

    assert not target_runs_here(ARM, isa_of("orin"))


@pytest.mark.parametrize(
    ("machine", "kernels"),
    [
        ("sapphire rapids", "amx_int8"),
        ("zen 5", "avx512_vnni"),
        ("skylake x", "avx512f"),
        ("haswell", "avx2"),
    ],
)
def test_the_newest_kernels_are_named(machine: str, kernels: str) -> None:
    """The manifest names what ONNX Runtime would choose."""
    assert best_kernels(isa_of(machine)) == kernels


def test_without_the_emulator_the_reason_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that can not be certified says why, and running it is refused."""
    if target_runs_natively(V3):
        pytest.skip("this processor has no VNNI: it needs no emulator for x86-64-v3")
    monkeypatch.setenv("PATH", str(tmp_path))
    runner = IsaRunner(V3)

    assert runner.certified_on is None
    assert "qemu-user" in str(runner.unavailable)
    with pytest.raises(BuildError, match="qemu-user"):
        runner.run(tmp_path / "x.onnx", [])


def test_sums_saturate_without_vnni_and_only_there(saturating_model: Path) -> None:
    """The same file is another model there: this is what certifying on the target is for."""
    exact = 8 * 255 * 127

    without = emulated().run(saturating_model, [bytes_of(255), bytes_of(1)]).outputs

    assert without[0]["y"].max() < exact
    assert (without[1]["y"] == 8 * 127).all()
    if not (native := IsaRunner(VNNI)).unavailable:
        assert (native.run(saturating_model, [bytes_of(255)]).outputs[0]["y"] == exact).all()


def test_a_capped_runtime_answers_as_an_emulated_one(saturating_model: Path) -> None:
    """ONNX Runtime on this machine, told that it has AVX2 only, saturates as without VNNI."""
    if target_runs_natively(V3):
        pytest.skip("this processor has no VNNI: there is nothing to cap")
    try:
        place = place_for(V3, Runtime.ONNXRUNTIME, capped_runtime())
    except CapError as error:
        pytest.skip(str(error))
    inputs = [bytes_of(255), bytes_of(1)]

    with EngineChild(saturating_model, SessionOptions(), inputs[0], place) as capped:
        answers = [capped.run(one)["y"] for one in inputs]

    expected = emulated().run(saturating_model, inputs).outputs
    assert all((a == e["y"]).all() for a, e in zip(answers, expected, strict=True))


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (V3, "amx_int8 capped at AVX2"),
        (AVX512, "amx_int8 capped at AVX512_CORE"),
        (VNNI, "amx_int8 capped at AVX512_CORE_VNNI"),
        (BF16, "amx_int8 capped at AVX512_CORE_BF16"),
        (AMX, "native amx_int8"),
        (TILES, "native amx_int8"),
    ],
)
def test_nothing_runs_faster_than_on_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, wanted: str
) -> None:
    """A newer processor is taken for one of the target, where its kernels would differ."""
    pretend(monkeypatch, "sapphire rapids")
    for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO):
        place = place_for(target, runtime, CappedRuntime(tmp_path))
        assert place.name == wanted
        assert place.floats_as_here == (target is not V3)


def test_tiles_are_no_reason_to_emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a copy to cap, a target with VNNI runs natively, in both runtimes alike."""
    pretend(monkeypatch, "sapphire rapids")
    assert place_for(VNNI, Runtime.ONNXRUNTIME) == place_for(VNNI, Runtime.OPENVINO)
    assert place_for(VNNI, Runtime.ONNXRUNTIME).name == "native amx_int8"
    assert place_for(V3, Runtime.ONNXRUNTIME).way is Way.EMULATED


def pretend(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for module in ("isa", "places"):
        monkeypatch.setattr(f"stoker_builder.kernels.{module}.host_isa", lambda: isa_of(machine))


@pytest.mark.parametrize("target", [VNNI, AVX512])
def test_a_processor_with_vnni_is_taken_for_one_with_or_without(
    saturating_model: Path, target: Target
) -> None:
    """The copy of ONNX Runtime saturates where the target would, and nowhere else."""
    if not host_isa() >= {"avx512_vnni", "avx512bw"}:
        pytest.skip("this processor has no AVX-512 with VNNI")
    runtime = copied_runtime()
    level = VNNI_CAP if target is VNNI else AVX512_CAP
    place = Place(Way.CAPPED, level, runtime.environment(level), runtime.packages)

    with EngineChild(saturating_model, SessionOptions(), bytes_of(255), place) as capped:
        largest = capped.run(bytes_of(255))["y"].max()

    assert (largest == 8 * 255 * 127) == (target is VNNI)


def copied_runtime() -> CappedRuntime:
    try:
        return capped_runtime()
    except CapError as error:
        pytest.skip(str(error))


ASKS = """
#include <stdio.h>
int main(void) {
    for (unsigned sub = 0; sub < 2; sub++) {
        unsigned a = 7, b, c = sub, d;
        __asm__ volatile(".byte 0x0f, 0x0b" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        printf("%u %u %u %u ", a, b, c, d);
    }
    return 0;
}
"""
# which of the eight numbers, and which bit of it
FEATURES = {
    "avx512f": (1, 16),
    "avx512_vnni": (2, 11),
    "amx_bf16": (3, 22),
    "amx_tile": (3, 24),
    "amx_int8": (3, 25),
    "avx_vnni": (4, 4),
    "avx512_bf16": (4, 5),
}


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        (AVX2_CAP, set()),
        (AVX512_CAP, {"avx512f"}),
        (VNNI_CAP, {"avx512f", "avx512_vnni", "avx_vnni"}),
        (BF16_CAP, {"avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16"}),
    ],
)
def test_a_cap_hides_what_is_newer_and_nothing_else(
    tmp_path: Path, level: str, kept: set[str]
) -> None:
    """A program that traps where it would ask the processor is told of an older one."""
    runtime = copied_runtime()
    source, program = tmp_path / "asks.c", tmp_path / "asks"
    source.write_text(ASKS)
    subprocess.run(["gcc", "-o", str(program), str(source)], check=True)

    done = subprocess.run(
        [program], env=runtime.environment(level), capture_output=True, text=True, check=True
    )

    told = [int(number) for number in done.stdout.split()]
    seen = {name for name, (place, bit) in FEATURES.items() if told[place] >> bit & 1}
    assert seen == kept & host_isa()


def test_a_copy_that_was_not_told_is_not_believed(
    saturating_model: Path,
) -> None:
    """Where the cap is not in force the candidate fails, instead of answering as with VNNI."""
    place = Place(Way.CAPPED, "capped in name only", {LEVEL: "AVX2"})

    with (
        pytest.raises(BuildError, match="not in force"),
        EngineChild(saturating_model, SessionOptions(), bytes_of(1), place),
    ):
        pass


def test_answers_keep_the_order_of_the_inputs(saturating_model: Path) -> None:
    """However many processes share the work, answers pair with inputs."""
    seen: list[int] = []
    run = emulated(jobs=2).run(
        saturating_model, (bytes_of(i) for i in range(6)), progress=seen.append
    )

    assert run.complete
    assert [int(answer["y"][0, 0]) for answer in run.outputs] == [8 * 127 * i for i in range(6)]
    assert seen == list(range(1, 7))


def test_the_time_budget_ends_a_run(saturating_model: Path) -> None:
    """When time is up the run says that it is incomplete, and no process is left."""
    run = emulated(time_budget_s=0.05).run(saturating_model, repeat(bytes_of(1)))

    assert not run.complete
    assert all((answer["y"] == 8 * 127).all() for answer in run.outputs)
    assert not psutil.Process().children()


def test_a_file_that_does_not_load_is_reported(tmp_path: Path) -> None:
    """What ONNX Runtime said in the child is in the error."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")

    with pytest.raises(BuildError, match=r"broken\.onnx") as caught:
        emulated().run(broken, [bytes_of(1)])

    assert caught.value.code is BuildCode.MEASURE
