"""TensorRT-RTX compiles for real, on a machine without a GPU."""

from pathlib import Path

import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.compiler import Compiled, compile_plan
from stoker_builder.tensorrt.settings import CompileSettings, ShapeRange, Validity
from stoker_contract.manifest import DType
from stoker_contract.plan_header import read_plan_header
from stoker_contract.target import Runtime

pytestmark = pytest.mark.rtx

BATCHES = ShapeRange(min=(1, 3, 32, 32), opt=(4, 3, 32, 32), max=(8, 3, 32, 32))


def rtx(gpu_sm: str, **more: object) -> CompileSettings:
    """Settings for a GPU that is not here."""
    return CompileSettings.model_validate(
        {"runtime": Runtime.TENSORRT_RTX, "compute_capability": gpu_sm, **more}
    )


@pytest.fixture
def compiled(tmp_path: Path, graphs: dict[str, Path]) -> Compiled:
    """A plan for SM89."""
    return compile_plan(graphs["fp16"], tmp_path / "x.plan", rtx("89"))


@pytest.mark.parametrize("gpu_sm", ["86", "89", "120"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_is_compiled_for_a_gpu_that_is_not_here(
    tmp_path: Path, graphs: dict[str, Path], precision: str, gpu_sm: str
) -> None:
    """Each precision, each GPU; the header says what was asked for, the runtime reads it."""
    plan = tmp_path / "x.plan"

    made = compile_plan(graphs[precision], plan, rtx(gpu_sm))

    header = read_plan_header(plan.read_bytes())
    assert (header.runtime, header.gpu_sms) == (Runtime.TENSORRT_RTX, (gpu_sm,))
    assert header.length == plan.stat().st_size
    assert [(t.name, t.dtype, t.shape) for t in made.io.inputs + made.io.outputs] == [
        ("x", DType.FP32, (1, 3, 32, 32)),
        ("scores", DType.FP32, (1, 10)),
    ]
    # a machine with a GPU says more
    assert made.validity in {Validity.NO_GPU, Validity.VALID, Validity.NOT_HERE}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_turing_takes_half_precision_and_int8(
    tmp_path: Path, graphs: dict[str, Path], precision: str
) -> None:
    """SM75 is the oldest GPU there is a compiler for."""
    made = compile_plan(graphs[precision], tmp_path / "x.plan", rtx("75"))

    assert made.header.gpu_sms == ("75",)


def test_a_precision_that_a_gpu_has_not_got_is_a_reason_not_a_crash(
    tmp_path: Path, graphs: dict[str, Path]
) -> None:
    """Turing multiplies no matrices in FP32; the error has the compiler's own words."""
    plan = tmp_path / "x.plan"
    with pytest.raises(BuildError, match="FP32 GEMM is not supported") as refused:
        compile_plan(graphs["fp32"], plan, rtx("75"))

    assert refused.value.code is BuildCode.COMPILE
    assert not plan.exists()


def test_free_dimensions_get_a_range(tmp_path: Path, graphs: dict[str, Path]) -> None:
    """The plan of a dynamic graph leaves the batch to the caller, within its profile."""
    settings = rtx("89", profile={"x": BATCHES})

    made = compile_plan(graphs["fp16-dynamic"], tmp_path / "x.plan", settings)

    assert made.io.inputs[0].shape == (-1, 3, 32, 32)
    assert made.io.outputs[0].shape == (-1, 10)


@pytest.mark.parametrize(
    ("precision", "settings", "said"),
    [
        ("fp16-dynamic", rtx("89"), "input x has free dimensions and no shape range"),
        ("fp16", rtx("90"), "does not compile for SM90"),
        ("fp16", rtx("89", dla_core=0), "there is no DLA core 0 here"),
    ],
)
def test_what_can_not_be_compiled_is_said(
    tmp_path: Path, graphs: dict[str, Path], precision: str, settings: CompileSettings, said: str
) -> None:
    """Before the compiler is started, and with what to do."""
    with pytest.raises(BuildError, match=said) as refused:
        compile_plan(graphs[precision], tmp_path / "x.plan", settings)

    assert refused.value.code is BuildCode.COMPILE
    assert refused.value.hint


def test_a_foreign_file_is_not_compiled(tmp_path: Path) -> None:
    """What is no ONNX gives the parser's words and one kind of error."""
    foreign = tmp_path / "x.onnx"
    foreign.write_bytes(b"\x00not an onnx file" * 20)
    with pytest.raises(BuildError) as refused:
        compile_plan(foreign, tmp_path / "x.plan", rtx("89"))

    assert refused.value.code is BuildCode.TENSORRT_GRAPH


def test_the_same_build_gives_the_same_plan(
    tmp_path: Path, graphs: dict[str, Path], compiled: Compiled
) -> None:
    """Without a GPU nothing is timed, so nothing depends on the day."""
    again = compile_plan(graphs["fp16"], tmp_path / "again.plan", rtx("89"))

    assert again.path.read_bytes() == compiled.path.read_bytes()


def test_a_timing_cache_is_kept_and_one_of_another_library_is_replaced(
    tmp_path: Path, graphs: dict[str, Path]
) -> None:
    """What the cache holds never stops a build."""
    cache = tmp_path / "sm89.timing"
    cache.write_bytes(b"of something else")

    compile_plan(graphs["fp16"], tmp_path / "x.plan", rtx("89"), timing_cache=cache)
    first = cache.read_bytes()
    compile_plan(graphs["fp16"], tmp_path / "x.plan", rtx("89"), timing_cache=cache)

    assert first != b"of something else"
    assert cache.read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sm89.timing", "x.plan"]
