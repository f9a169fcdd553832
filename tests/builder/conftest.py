"""What several tests of the builder need: the tiny model, exported once, and built once."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker_builder.bench import BuildResult
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from support.shared import once
from support.tiny_build import EVERYTHING, exported, request_for


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Other tests run on this machine too."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where no copy of ONNX Runtime can be made; the emulator stays."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if emulator := shutil.which("qemu-x86_64"):
        (folder / "qemu-x86_64").symlink_to(emulator)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """The tiny model, through the whole pipeline from PyTorch."""
    return once(tmp_path_factory, "built", _build)


def _build(folder: Path) -> BuildResult:
    output, traces = folder / "releases" / "release", folder / "traces"
    traces.mkdir()
    return build(request_for(output, baselines=True, profile=traces, **EVERYTHING), Silence())


@pytest.fixture(scope="session")
def traces(built: BuildResult) -> Path:
    """Where that build left its traces."""
    return built.output.parents[1] / "traces"


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as an ONNX file."""
    return exported("factory", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def wild_channel_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that weights per tensor destroy."""
    return exported("one_wild_channel", tmp_path_factory.mktemp("channel"))


@pytest.fixture(scope="session")
def wild_activations_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that eight-bit activations destroy."""
    return exported("wild_activations", tmp_path_factory.mktemp("activations"))
