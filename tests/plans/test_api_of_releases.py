"""The one code path, held against the recorded names of seven TensorRT releases and RTX."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from stoker_builder.tensorrt.compile_child import compile_job
from stoker_builder.tensorrt.settings import CompileJob, CompileSettings, ShapeRange
from stoker_contract.manifest import DType, SessionOptions
from stoker_contract.plan_header import read_plan_header
from stoker_contract.target import Runtime
from stoker_engine.tensorrt_backend import TensorRtEngine
from stoker_engine.tensorrt_library import Library
from support.fake_cuda import FakeCuda
from support.recorded_tensorrt import DATA, RTX, VERSIONS, recorded_tensorrt
from support.small_cnn import small_cnn

ALL = (*VERSIONS, RTX)
BATCHES = ShapeRange(min=(1, 3, 32, 32), opt=(2, 3, 32, 32), max=(4, 3, 32, 32))


def settings_for(version: str, **more: object) -> CompileSettings:
    """Everything that a build may ask for, on one path or the other."""
    rtx = version == RTX
    return CompileSettings.model_validate(
        {
            "runtime": Runtime.TENSORRT_RTX if rtx else Runtime.TENSORRT,
            "compute_capability": "89" if rtx else None,
            "workspace_bytes": 2**28,
            "optimisation_level": 3,
            **more,
        }
    )


def compiled(library: Library, graph: Path, folder: Path, settings: CompileSettings) -> Path:
    """A plan, through the whole builder path."""
    job = CompileJob(
        settings=settings,
        onnx=str(graph),
        plan=str(folder / "x.plan"),
        timing_cache=str(folder / "timing"),
    )
    report = compile_job(job, library)
    assert report.stopped is None
    assert report.version == library.__version__
    return Path(job.plan)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", ALL)
def test_the_builder_uses_only_names_that_a_release_has(
    tmp_path: Path, graphs: dict[str, Path], version: str, precision: str
) -> None:
    """From graph to plan in each release; a name that it lacks would raise."""
    library = recorded_tensorrt(version)

    plan = compiled(library, graphs[precision], tmp_path, settings_for(version))

    assert read_plan_header(plan.read_bytes()).version.startswith(library.__version__)
    assert (tmp_path / "timing").read_bytes() == b"timings"
    assert library.world.built[0]["pools"] == {"WORKSPACE": 2**28}


@pytest.mark.parametrize("version", ALL)
def test_precision_is_in_the_graph_or_granted_by_flags(
    tmp_path: Path, graphs: dict[str, Path], version: str
) -> None:
    """8.6 is told what it may use; every later release is strongly typed and told nothing."""
    flags = {}
    for precision in ("fp32", "fp16", "int8"):
        library = recorded_tensorrt(version)
        compiled(library, graphs[precision], tmp_path, settings_for(version))
        flags[precision] = library.world.built[0]["flags"]
        strongly = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        typed = strongly is not None and library.world.built[0]["network"] >> int(strongly) & 1
        assert bool(typed) is (version != "8.6.1")

    if version == "8.6.1":
        assert flags == {"fp32": [], "fp16": ["FP16"], "int8": ["FP16", "INT8"]}
    else:
        assert flags == {"fp32": [], "fp16": [], "int8": []}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dla_is_a_place_and_half_precision(
    tmp_path: Path, graphs: dict[str, Path], version: str
) -> None:
    """What the accelerator does not take falls back to the GPU."""
    library = recorded_tensorrt(version)

    compiled(library, graphs["fp16"], tmp_path, settings_for(version, dla_core=1))

    flags = library.world.built[0]["flags"]
    assert "GPU_FALLBACK" in flags
    assert ("FP16" in flags) is hasattr(library.BuilderFlag, "FP16")


@pytest.mark.parametrize("graph", [False, True], ids=["plain", "cuda-graph"])
@pytest.mark.parametrize("version", ALL)
def test_the_engine_uses_only_names_that_a_release_has(
    tmp_path: Path,
    graphs: dict[str, Path],
    version: str,
    graph: bool,  # noqa: FBT001
) -> None:
    """Load, describe, run, close in each release."""
    cuda = FakeCuda()
    library = recorded_tensorrt(version, cuda)
    plan = compiled(library, graphs["fp16"], tmp_path, settings_for(version))
    session = SessionOptions(parallel_runs=2, cuda_graph=graph)

    engine = TensorRtEngine(str(plan), session, library, cuda)
    x = np.full((1, 3, 32, 32), 3, np.float32)
    (answer,) = engine.run({"x": x}, ["scores"])
    assert json.loads(engine.layers()) == {"Layers": []}
    engine.close()

    np.testing.assert_array_equal(answer, np.full((1, 10), 6, np.float32))
    assert engine.io.inputs[0].dtype is DType.FP32
    assert library.world.host_code == [False, False]  # the compiler looks at its plan too


@pytest.mark.parametrize("version", ALL)
def test_shapes_within_the_profile_are_served(
    tmp_path: Path, graphs: dict[str, Path], version: str
) -> None:
    """A dynamic plan runs at any batch of its range."""
    cuda = FakeCuda()
    library = recorded_tensorrt(version, cuda)
    settings = settings_for(version, profile={"x": BATCHES})
    plan = compiled(library, graphs["fp16-dynamic"], tmp_path, settings)
    engine = TensorRtEngine(str(plan), SessionOptions(), library, cuda)

    shapes = [
        engine.run({"x": np.ones((batch, 3, 32, 32), np.float32)}, ["scores"])[0].shape
        for batch in (4, 1, 2)
    ]

    assert shapes == [(4, 10), (1, 10), (2, 10)]


@pytest.mark.parametrize("version", ALL)
def test_what_a_build_timed_is_what_the_next_one_begins_with(
    tmp_path: Path, graphs: dict[str, Path], version: str
) -> None:
    """The cache of a class of hardware is given to the library again, as it was written."""
    given = []
    for _ in range(2):
        library = recorded_tensorrt(version)
        compiled(library, graphs["fp16"], tmp_path, settings_for(version))
        given += library.world.timings

    assert given == [b"", b"timings"]


def test_integers_of_64_bits_are_those_that_the_release_has(tmp_path: Path) -> None:
    """8.6 narrows them to 32 bits, and the artifact's tensors say so."""
    model = small_cnn()
    model.graph.input.append(onnx.helper.make_tensor_value_info("n", onnx.TensorProto.INT64, [1]))
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    for version, dtype in (("8.6.1", DType.INT32), ("10.3.0", DType.INT64)):
        job = CompileJob(
            settings=settings_for(version), onnx=str(path), plan=str(tmp_path / "x.plan")
        )
        report = compile_job(job, recorded_tensorrt(version))
        assert report.io is not None
        assert report.io.inputs[1].dtype is dtype


def test_every_release_is_recorded() -> None:
    """A file of names that nothing is held against would prove nothing."""
    assert {path.stem for path in DATA.glob("*.json")} == set(ALL)
