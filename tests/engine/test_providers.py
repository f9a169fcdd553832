"""ONNX Runtime's accelerators: taken where a device has them, and the processor where not."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
import pytest

from stoker_contract.manifest import SessionOptions
from stoker_engine.onnxruntime_backend import OnnxRuntimeEngine
from stoker_engine.providers import CPU, attempts
from support import models

TENSORRT, CUDA = "TensorrtExecutionProvider", "CUDAExecutionProvider"
# What ``get_available_providers`` says, as recorded from each wheel.
JETSON = (TENSORRT, CUDA, CPU)  # onnxruntime-gpu of JetPack 6
CUDA_ONLY = (CUDA, CPU)
PROCESSOR = ("AzureExecutionProvider", CPU)  # onnxruntime from the package index

BOTH = SessionOptions(accelerators=("tensorrt", "cuda"))


@pytest.mark.parametrize(
    ("options", "available", "tried"),
    [
        (SessionOptions(), JETSON, [[CPU]]),
        (BOTH, JETSON, [[TENSORRT, CUDA, CPU], [CUDA, CPU], [CPU]]),
        (BOTH, CUDA_ONLY, [[CUDA, CPU], [CPU]]),
        (BOTH, PROCESSOR, [[CPU]]),
        (SessionOptions(accelerators=("cuda",)), JETSON, [[CUDA, CPU], [CPU]]),
    ],
    ids=["not-allowed", "jetson", "cuda-only", "processor", "one-allowed"],
)
def test_a_session_gets_what_is_allowed_and_there_with_the_processor_last(
    options: SessionOptions, available: tuple[str, ...], tried: list[list[str]]
) -> None:
    """Allowed by the manifest, built into the wheel, and one less each time it fails."""
    assert [[name for name, _ in one] for one in attempts(options, available)] == tried


@pytest.mark.parametrize(("precision", "half"), [("fp32", "0"), ("fp16", "1")])
def test_half_precision_is_used_only_where_it_was_certified(
    precision: Literal["fp32", "fp16"], half: str
) -> None:
    """Neither TensorRT's FP16 nor CUDA's TF32 comes in by a default of theirs."""
    options = BOTH.model_copy(update={"float_precision": precision})
    (_, tensorrt), (_, cuda), _ = next(attempts(options, JETSON))

    assert tensorrt["trt_fp16_enable"] == half
    assert (cuda.get("use_tf32") == "0") is (precision == "fp32")


def test_an_engine_that_may_use_a_gpu_runs_without_one(tmp_path: Path) -> None:
    """The artifact that names accelerators is the same on every device."""
    path = tmp_path / "x.onnx"
    path.write_bytes(models.scale(2).data)

    engine = OnnxRuntimeEngine(str(path), BOTH)
    (answer,) = engine.run({"x": np.ones((1, 4), np.float32)}, ["y"])
    used = engine.providers
    engine.close()

    np.testing.assert_array_equal(answer, np.full((1, 4), 2, np.float32))
    assert used[-1] == CPU
    assert set(used) <= set(ort.get_available_providers())
