"""Graphs in the precisions that plans are compiled from."""

import platform
from pathlib import Path

import onnx
import pytest

from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.tensorrt.graphs import half, parsable
from support.small_cnn import samples, small_cnn


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small net by precision: ``fp32``, ``fp16``, ``int8``, and ``fp16-dynamic``."""
    folder = tmp_path_factory.mktemp("graphs")
    paths = {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8", "fp16-dynamic")}
    source = parsable(small_cnn())
    onnx.save(source, paths["fp32"])
    onnx.save(half(source), paths["fp16"])
    onnx.save(half(parsable(small_cnn("batch"))), paths["fp16-dynamic"])
    quantiser = Quantiser(paths["fp32"], samples(8), folder)  # type: ignore[arg-type]
    quantised = onnx.load(quantiser.make(RECIPES["int8-explicit"]))
    onnx.save(half(parsable(quantised)), paths["int8"])
    return paths


@pytest.fixture(autouse=True)
def _has_compiler(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("rtx") and platform.machine() != "x86_64":
        pytest.skip("TensorRT-RTX has wheels for x86-64 only")
