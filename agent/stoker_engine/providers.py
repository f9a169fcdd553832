"""Which of ONNX Runtime's execution providers a session is given. Pure.

What a wheel was built with says nothing about the device: its CUDA provider is there without a
GPU, or with a driver that is too old, and then refuses. So there is a list to try, and the
processor ends each of its entries.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from stoker_contract.manifest import SessionOptions

CPU: Final = "CPUExecutionProvider"
_NAMES: Final = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider"}

Provider = tuple[str, Mapping[str, str]]
"""Its name, and its settings."""


def attempts(options: SessionOptions, available: Sequence[str]) -> Iterator[list[Provider]]:
    """The providers to make a session with, and with what to try again when it can not be made.

    Args:
        options: of the session, which names the accelerators that it may have.
        available: what this ONNX Runtime was built with.

    Yields:
        Fewer accelerators each time; the last is the processor alone.
    """
    allowed = [name for name in options.accelerators if _NAMES[name] in available]
    for first in range(len(allowed) + 1):
        accelerators = [(_NAMES[name], _settings(name, options)) for name in allowed[first:]]
        yield [*accelerators, (CPU, {})]


def _settings(name: str, options: SessionOptions) -> Mapping[str, str]:
    if name == "tensorrt":
        return {"trt_fp16_enable": "1" if options.float_precision == "fp16" else "0"}
    # TF32 has the fraction of FP16; and the search for the fastest kernel takes its memory for ever
    precise = {"use_tf32": "0"} if options.float_precision == "fp32" else {}
    return {**precise, "cudnn_conv_algo_search": "HEURISTIC"}
