"""CUDA on whatever machine this is, and the names of its real binding."""

import ast
import importlib
from pathlib import Path

import pytest

from stoker_contract.codes import ReasonCode
from stoker_engine import cuda, cuda_runtime
from stoker_engine.engine import EngineError


def names_used(source: str) -> set[str]:
    """What is read from the binding: ``runtime.x``, ``runtime.x.y`` and ``self._runtime.x``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node).rpartition(".")[0].endswith(
            ("runtime", "runtime.cudaError_t", "runtime.cudaMemcpyKind")
        ):
            found.add(ast.unparse(node).partition("runtime.")[2])
    return {name for name in found if name}


def test_every_name_that_is_used_is_in_the_real_binding() -> None:
    """The binding is here without a GPU, and has what the code asks of it."""
    runtime = importlib.import_module("cuda.bindings.runtime")
    names = names_used(Path(cuda_runtime.__file__).read_text())
    names |= {
        f"cudaDeviceAttr.cudaDevAttr{name}"
        for name in ("ComputeCapabilityMajor", "ComputeCapabilityMinor", "Integrated")
    }

    assert len(names) > 25
    for name in sorted(names):
        value: object = runtime
        for part in name.split("."):
            value = getattr(value, part)


def first_gpu() -> cuda.Cuda | EngineError:
    """The GPU of this machine, or why there is none."""
    try:
        return cuda.open_cuda()
    except EngineError as error:
        return error


def test_a_machine_without_a_gpu_is_told_so_in_the_words_of_cuda() -> None:
    """Each binding says why, and nothing crashes."""
    found = first_gpu()
    if not isinstance(found, EngineError):
        pytest.skip(f"there is a GPU: {found.gpu.name}")

    assert found.code is ReasonCode.NO_GPU
    assert "CUDA error" in found.detail
    assert "pycuda" in found.detail


def test_a_gpu_moves_bytes_and_back() -> None:
    """What goes to the device comes back, in the order of the stream."""
    found = first_gpu()
    if isinstance(found, EngineError):
        pytest.skip(f"no GPU: {found.detail}")
    buffer, stream = found.buffer(1024), found.stream()
    buffer.host[...] = 7
    found.to_device(buffer, 1024, stream)
    found.wait(stream)
    if not buffer.shared:
        buffer.host[...] = 0
    found.to_host(buffer, 1024, stream)
    found.wait(stream)

    assert buffer.host.min() == buffer.host.max() == 7
    assert found.gpu.sm.isdigit()
    found.close()
