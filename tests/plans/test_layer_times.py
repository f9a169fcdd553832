"""Where the time of a plan goes: told by TensorRT's profiler, of every release."""

import json
from pathlib import Path

import numpy as np
import pytest

from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.tensorrt.compile_child import compile_job
from stoker_builder.tensorrt.layer_times import time_layers
from stoker_builder.tensorrt.settings import CompileJob, CompileSettings
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Runtime
from stoker_engine.tensorrt_backend import TensorRtEngine
from support.fake_cuda import FakeCuda
from support.recorded_tensorrt import RTX, VERSIONS, recorded_tensorrt

X = {"x": np.ones((1, 3, 32, 32), np.float32)}
LAYERS = json.dumps(
    {
        "Layers": [
            {"Name": "Conv_0 + Relu_1", "LayerType": "CaskConvolution"},
            {"Name": "Conv_2", "LayerType": "CaskConvolution"},
            {"Name": "Reformat_3", "LayerType": "Reformat"},
        ]
    }
)
TOOK = (("Conv_0 + Relu_1", 0.25), ("Reformat_3", 0.25), ("Conv_2", 1.25), ("of_its_own", 0.25))


def engine_of(graph: Path, folder: Path, version: str = "10.3.0") -> TensorRtEngine:
    """A plan of a release, loaded on a fake GPU."""
    cuda = FakeCuda()
    library = recorded_tensorrt(version, cuda)
    library.world.inspected = LAYERS
    library.world.layer_ms = TOOK
    runtime, there = (Runtime.TENSORRT_RTX, "89") if version == RTX else (Runtime.TENSORRT, None)
    settings = CompileSettings(runtime=runtime, compute_capability=there)
    job = CompileJob(settings=settings, onnx=str(graph), plan=str(folder / "x.plan"))
    compile_job(job, library)
    return TensorRtEngine(job.plan, SessionOptions(), library, cuda)


def timed(engine: TensorRtEngine) -> OperatorProfile:
    """What its profiler says."""
    found = time_layers(engine, X, Runtime.TENSORRT)
    assert found is not None
    return found


@pytest.mark.parametrize("version", [*VERSIONS, RTX])
def test_the_layers_of_a_run_are_timed(
    tmp_path: Path, graphs: dict[str, Path], version: str
) -> None:
    """By kind, as the inspector names them, and the most expensive layer first."""
    found = timed(engine_of(graphs["fp16"], tmp_path, version))

    assert found.total_ms == pytest.approx(2.0)
    kinds = [("CaskConvolution", 2), ("Reformat", 1), ("layer", 1)]
    assert [(one.op_type, one.calls) for one in found.by_type] == kinds
    assert [one.share for one in found.by_type] == pytest.approx([0.75, 0.125, 0.125])
    assert found.nodes[0].name == "Conv_2"
    assert found.nodes[0].ms == pytest.approx(1.25)
    assert found.runtime == "tensorrt"


def test_an_engine_that_serves_has_no_profiler(tmp_path: Path, graphs: dict[str, Path]) -> None:
    """It is the builder's alone, and changes no answer."""
    engine = engine_of(graphs["fp16"], tmp_path)
    (served,) = engine.run(X, ["scores"])
    (context,) = engine._library.world.contexts  # noqa: SLF001 - a test looks inside
    assert not hasattr(context, "profiler")

    timed(engine)

    assert hasattr(context, "profiler")
    np.testing.assert_array_equal(engine.run(X, ["scores"])[0], served)


def test_a_library_that_says_nothing_gives_no_profile(
    tmp_path: Path, graphs: dict[str, Path]
) -> None:
    """Which is not one in which nothing takes time."""
    engine = engine_of(graphs["fp16"], tmp_path)
    engine._library.world.layer_ms = ()  # noqa: SLF001 - a test says what the library does

    assert time_layers(engine, X, Runtime.TENSORRT) is None


def test_a_large_plan_is_told_in_little(tmp_path: Path, graphs: dict[str, Path]) -> None:
    """Hundreds of fused layers with the names of all their parts still fit into a report."""
    engine = engine_of(graphs["fp16"], tmp_path)
    layers = tuple((f"{number} + {'Conv ' * 400}", 0.01 * number) for number in range(500))
    engine._library.world.layer_ms = layers  # noqa: SLF001 - a test says what the library does

    found = timed(engine)

    assert len(found.encode()) < 16 * 1024
    assert found.total_ms == pytest.approx(sum(ms for _, ms in layers))
    assert found.nodes[0].name.startswith("499 + Conv")
