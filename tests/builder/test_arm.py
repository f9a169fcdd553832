"""ARM on this machine: an emulated processor, with the kernels that its devices have."""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from stoker_builder.accuracy.golden import GoldenSet
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels import sysroot as sysroot_module
from stoker_builder.kernels.emulation import Emulator
from stoker_builder.kernels.isa import IsaRunner, host_isa
from stoker_builder.kernels.processors import PROCESSORS, Processor, processor_for
from stoker_builder.kernels.sysroot import PROGRAM, Sysroot, find_sysroot, make_sysroot
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.rows import Mark
from stoker_builder.targets import load_target
from stoker_cli.main import run
from stoker_contract.manifest import Precision
from stoker_contract.target import Arch, Target
from support.tiny_build import request_for

WIDTH = 64
STEP = 0.1001  # between two answers of the product below
CACHE = "cache/stoker/sysroots"

# Instructions as the emulator shows them before it translates them: name, mask, value.
DOT = (
    ("sdot", 0xFFC0F400, 0x4F80E000),
    ("udot", 0xFFC0F400, 0x6F80E000),
    ("smmla", 0xFFE0FC00, 0x4E80A400),
    ("ummla", 0xFFE0FC00, 0x6E80A400),
)

pytestmark = pytest.mark.skipif(
    bool(host_isa() & {"asimd"}), reason="this is an ARM machine: there is nothing to emulate"
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sysroot:
    """A sysroot, made for real; skips where there is no network or no apt."""
    base = tmp_path_factory.mktemp("arm")
    try:
        return make_sysroot(base / CACHE)
    except BuildError as error:
        if "network" in error.hint or "is not installed" in error.detail:
            pytest.skip(f"{error.detail} ({error.hint})")
        raise


@pytest.fixture
def sysroot(made: Sysroot, monkeypatch: pytest.MonkeyPatch) -> Sysroot:
    """The same, where builds look for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(made.folder.parents[2]))
    return made


@pytest.fixture
def no_sysroot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which none was made; the value is where it would be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / CACHE


def product(folder: Path, activations: type[np.uint8 | np.int8]) -> Path:
    """A matrix product with a quantised weight, between quantised activations."""
    rng = np.random.default_rng(0)
    zero = activations(128 if activations is np.uint8 else 0)
    values = {
        "weight": rng.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8),
        "zero": np.asarray(zero),
        **{name: np.float32(v) for name, v in (("sx", 0.02), ("sw", 0.01), ("sy", 0.1))},
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weight", "sw"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "sy", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, WIDTH])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    path = folder / f"{np.dtype(activations).name}.onnx"
    onnx.save(model, path)
    return path


def samples(count: int) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Inputs for the product."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield {"x": rng.normal(size=(4, WIDTH)).astype(np.float32)}


def assert_exact(answer: NDArray[np.generic], path: Path, inputs: dict[str, Any]) -> None:
    """It is what the graph says, but for the last rounding (on x86 without VNNI, sums overflow)."""
    (meant,) = ReferenceEvaluator(str(path)).run(None, inputs)
    np.testing.assert_allclose(answer.astype(np.float32), np.asarray(meant), atol=STEP)


def arm(*isa: str) -> Target:
    """A target of 64-bit ARM."""
    return Target(name="board", arch=Arch.AARCH64, isa=isa)


def seen_in(listing: Iterable[str]) -> set[str]:
    """Which of the instructions above were run."""
    words = (re.match(r"0x[0-9a-f]+:\s+([0-9a-f]{8})\b", line) for line in listing)
    codes = {int(word[1], 16) for word in words if word}
    return {name for name, mask, value in DOT if any(code & mask == value for code in codes)}


@pytest.mark.parametrize(
    ("isa", "name"),
    [
        (("asimd",), "cortex-a72"),
        (("asimddp",), "cortex-a76"),
        (("asimddp", "i8mm"), "max,sve=off,sme=off"),
        (("i8mm|asimddp",), "cortex-a76"),
        (("i8mm", "sve"), "max,sme=off"),
    ],
)
def test_a_target_is_run_on_the_least_processor_that_has_it_all(
    isa: tuple[str, ...], name: str
) -> None:
    """More features than the devices have would be other kernels."""
    found = processor_for(arm(*isa))

    assert found is not None
    assert found.name == name


def test_what_no_emulated_processor_has_is_named() -> None:
    """The reason says which feature, and what to do."""
    runner = IsaRunner(arm("asimddp", "sme2"))

    assert "sme2" in str(runner.unavailable)
    assert "build on a machine that has it" in str(runner.unavailable)


@pytest.mark.usefixtures("no_sysroot")
def test_without_a_sysroot_the_reason_says_how_to_make_it() -> None:
    """A build downloads nothing by itself."""
    runner = IsaRunner(load_target("aarch64-dotprod").target)

    assert runner.certified_on is None
    assert find_sysroot() is None
    assert "stoker target emulate aarch64" in str(runner.unavailable) or "qemu" in str(
        runner.unavailable
    )


def test_a_build_goes_on_with_an_onnx_runtime_of_unknown_origin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that was built here has no wheel for ARM of its version: that is a reason, no end."""
    monkeypatch.setattr(sysroot_module, "_WHEELS", {"onnxruntime": ("no-such-package",)})

    runner = IsaRunner(load_target("aarch64-dotprod").target)

    assert runner.certified_on is None
    assert "onnxruntime is not installed" in str(runner.unavailable) or "qemu" in str(
        runner.unavailable
    )


def test_without_apt_the_command_says_what_to_do(
    no_sysroot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It names what is missing, and how to go on, and leaves nothing behind."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert run(["target", "emulate", "aarch64"]) == 1

    said = capsys.readouterr().err
    assert "EMULATOR" in said
    assert "apt-get is not installed" in said
    assert "Debian" in said
    assert not no_sysroot.exists()


def test_a_failed_download_leaves_nothing_behind(no_sysroot: Path, tmp_path: Path) -> None:
    """Sources without arm64: apt's words, and the option that names others."""
    sources = tmp_path / "sources.list"
    sources.write_text("")

    with pytest.raises(BuildError) as refused:
        make_sysroot(sources=sources)

    assert refused.value.code is BuildCode.EMULATOR
    assert "--sources" in refused.value.hint or "install" in refused.value.hint
    assert not list(no_sysroot.glob("*"))


def test_only_arm_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    """Another architecture is refused by name."""
    assert run(["target", "emulate", "riscv64"]) == 1
    assert "there is: aarch64" in capsys.readouterr().err


def test_making_it_again_changes_nothing(sysroot: Sysroot) -> None:
    """The command may be given as often as one likes."""
    before = sysroot.folder.stat()

    assert make_sysroot(tell=pytest.fail).folder == sysroot.folder
    assert sysroot.folder.stat() == before
    assert [path.name for path in sysroot.folder.parent.iterdir()] == [sysroot.folder.name]


@pytest.mark.parametrize("processor", PROCESSORS[Arch.AARCH64], ids=lambda one: one.name)
def test_a_processor_has_what_the_table_says(sysroot: Sysroot, processor: Processor) -> None:
    """The emulator's own word decides which kernels run; the table must not promise more."""
    program = (
        "import ctypes, json; ask = ctypes.CDLL(None).getauxval; ask.restype = ctypes.c_ulong;"
        "dot, sve, i8mm = ask(16) >> 20, ask(16) >> 22, ask(26) >> 13;"
        "print(dot & 1, sve & 1, i8mm & 1)"
    )
    command = [*sysroot.command(PROGRAM, processor), "-c", program]
    told = subprocess.run(
        command, env=sysroot.environment(), check=True, capture_output=True, text=True
    ).stdout.split()

    promised = [feature in processor.features for feature in ("asimddp", "sve", "i8mm")]
    assert [bool(int(word)) for word in told] == promised


@pytest.mark.usefixtures("sysroot")
def test_the_sums_of_the_oldest_processor_are_exact(tmp_path: Path) -> None:
    """By kernels without a dot product."""
    path = product(tmp_path, np.uint8)

    runner = IsaRunner(load_target("aarch64").target, time_budget_s=100.0)
    answers = runner.run(path, samples(3))

    assert runner.certified_on == "qemu-aarch64 cortex-a72"
    assert answers.complete
    for inputs, there in zip(samples(3), answers.outputs, strict=True):
        assert_exact(there["y"], path, inputs)


@pytest.mark.parametrize(
    ("name", "activations", "kernels"),
    [
        ("aarch64-dotprod", np.int8, {"sdot"}),
        ("aarch64-i8mm", np.uint8, {"ummla"}),
    ],
)
def test_the_kernels_are_those_of_the_target(
    sysroot: Sysroot,
    name: str,
    activations: type[np.uint8 | np.int8],
    kernels: set[str],
    tmp_path: Path,
) -> None:
    """Products of bytes are run by the instructions of devices, and come to the same."""
    path, listing = product(tmp_path, activations), tmp_path / "listing"
    answer, (inputs,) = tmp_path / "answer.npy", samples(1)
    processor = processor_for(load_target(name).target)
    assert processor is not None
    program = (
        "import numpy, onnxruntime, sys; model, answer, x = sys.argv[1:]; "
        "session = onnxruntime.InferenceSession(model); "
        "numpy.save(answer, session.run(None, {'x': numpy.load(x)})[0])"
    )
    command = list(sysroot.command(PROGRAM, processor))
    command[1:1] = ["-d", "in_asm", "-D", str(listing)]
    np.save(tmp_path / "x.npy", inputs["x"])
    command += ["-c", program, str(path), str(answer), str(tmp_path / "x.npy")]

    subprocess.run(command, env=sysroot.environment(), check=True, capture_output=True)

    with listing.open(encoding="ascii", errors="replace") as lines:
        assert seen_in(lines) == kernels
    assert_exact(np.load(answer), path, inputs)


@pytest.mark.usefixtures("sysroot")
def test_an_emulator_that_fails_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not know the processor, say: its own words are the reason from then on."""
    program = tmp_path / PROGRAM
    program.write_text("#!/bin/sh\necho unable to find CPU model >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    emulator = Emulator(load_target("aarch64-dotprod"), 20.0, Silence())
    (inputs,) = samples(1)
    golden = GoldenSet((inputs,), ({"y": inputs["x"]},), (0,), 0.1, 0.0, classifies=False)

    assert emulator.unavailable is None
    seen, kernels = emulator.golden(product(tmp_path, np.int8), golden, Precision.FP32)

    assert seen is golden
    assert kernels is None
    assert "unable to find CPU model" in str(emulator.unavailable)


@pytest.mark.slow
@pytest.mark.usefixtures("sysroot")
def test_a_build_for_arm_says_what_was_emulated(tmp_path: Path, tiny_onnx: Path) -> None:
    """FP32 ships with answers of ARM kernels; what INT8 loses there is known, but no time."""
    request = request_for(
        tmp_path / "release",
        model=str(tiny_onnx),
        targets=("aarch64-dotprod",),
        latency_s=0.0,
        emulation_budget_s=5.0,
    )
    result = build(request, Silence())

    (artifact,) = result.manifest.artifacts
    assert artifact.accuracy is not None
    assert artifact.accuracy.certified_on.startswith("qemu-aarch64 cortex-a76 on ")
    int8 = next(row for row in result.rows if row.name == "int8-s8s8")
    assert int8.accuracy is not None
    assert int8.accuracy.certified_on.startswith("qemu-aarch64 cortex-a76 on ")
    assert int8.mark in {Mark.PASS, Mark.INCONCLUSIVE}
    assert not int8.shipped
    assert "emulation gives no times" in int8.why


@pytest.mark.usefixtures("no_sysroot")
def test_a_build_for_arm_goes_on_without_a_sysroot(tmp_path: Path, tiny_onnx: Path) -> None:
    """FP32 ships, the manifest claims nothing about ARM, and the table says what to do."""
    request = request_for(
        tmp_path / "release",
        model=str(tiny_onnx),
        targets=("aarch64-dotprod",),
        latency_s=0.0,
        emulation_budget_s=4.0,
    )
    result = build(request, Silence())

    (artifact,) = result.manifest.artifacts
    assert artifact.accuracy is not None
    assert "not executed on aarch64-dotprod" in artifact.accuracy.certified_on
    int8 = next(row for row in result.rows if row.name == "int8-s8s8")
    assert int8.mark is Mark.NOT_JUDGED
    assert "stoker target emulate aarch64" in int8.why or "qemu" in int8.why
