"""What a release is compared with: the ways other people would run the same model.

The classes are run by :mod:`benchmarks.builder.peer_child`, each in a process of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from stoker_builder.kernels.engines import EngineRunner
from stoker_builder.latency.torch_routes import ROUTES
from stoker_contract.manifest import SessionOptions

Arrays = Mapping[str, NDArray[np.generic]]
Runtime = Literal["torch", "onnxruntime", "openvino", "stoker"]

SHIPPED: Final = "shipped"
REFERENCE: Final = "ort-fp32"
EAGER: Final = "eager"


@dataclass(frozen=True, slots=True)
class Peer:
    """One row of a table.

    Attributes:
        precision: FP32 keeps its accuracy by definition; everything else is judged.
        file: which of the prepared files is run; None for PyTorch and for the release.
        needs_bf16: not offered where the processor has no BF16 arithmetic.
        only_transformers: quantises nothing but linear layers.
    """

    name: str
    title: str
    runtime: Runtime
    precision: Literal["fp32", "bf16", "int8", ""]
    file: str | None = None
    needs_bf16: bool = False
    only_transformers: bool = False


PEERS: Final[Mapping[str, Peer]] = MappingProxyType(
    {
        peer.name: peer
        for peer in (
            Peer(EAGER, "PyTorch eager, as it comes", "torch", "fp32"),
            Peer("eager-tuned", "PyTorch eager, allocator tuned", "torch", "fp32"),
            Peer("torch-compile", "torch.compile, frozen", "torch", "fp32"),
            Peer(
                "torch-compile-bf16",
                "torch.compile, frozen, BF16",
                "torch",
                "bf16",
                needs_bf16=True,
            ),
            Peer(
                "torch-int8-dynamic",
                "PyTorch INT8, dynamic",
                "torch",
                "int8",
                only_transformers=True,
            ),
            Peer("torch-int8-static", "PyTorch INT8, PT2E, compiled", "torch", "int8"),
            Peer(REFERENCE, "ONNX Runtime FP32", "onnxruntime", "fp32", "source.onnx"),
            Peer(
                "ort-int8-static",
                "ONNX Runtime INT8, its static default",
                "onnxruntime",
                "int8",
                "ort-static.onnx",
            ),
            Peer(
                "ort-int8-dynamic",
                "ONNX Runtime INT8, its dynamic default",
                "onnxruntime",
                "int8",
                "ort-dynamic.onnx",
            ),
            Peer("openvino-fp32", "OpenVINO FP32", "openvino", "fp32", "source.onnx"),
            Peer(
                "openvino-bf16",
                "OpenVINO BF16",
                "openvino",
                "bf16",
                "source.onnx",
                needs_bf16=True,
            ),
            Peer("openvino-int8", "OpenVINO INT8, NNCF's default", "openvino", "int8", "nncf.xml"),
            Peer(SHIPPED, "**what stoker ships**", "stoker", ""),
        )
    }
)


def offered(*, is_transformer: bool, has_bf16: bool) -> Iterator[Peer]:
    """The peers that make sense for a model on a processor."""
    for peer in PEERS.values():
        if (has_bf16 or not peer.needs_bf16) and (is_transformer or not peer.only_transformers):
            assert peer.runtime != "torch" or peer.name in ROUTES  # noqa: S101 - a typing error
            yield peer


class OpenPeer(Protocol):
    """A file in a runtime."""

    def run(self, inputs: Arrays, /) -> Arrays:
        """Answer one sample with all outputs."""

    def __call__(self) -> object:
        """Run the timed sample."""


class OnnxRuntimePeer:
    """ONNX Runtime as its documentation shows it: only the number of threads is set."""

    def __init__(self, path: Path, inputs: Arrays, threads: int) -> None:
        import onnxruntime as ort  # noqa: PLC0415  one runtime per process

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        self._session: Any = ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        self._inputs = dict(inputs)

    def run(self, inputs: Arrays, /) -> Arrays:
        """Answer one sample."""
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))

    def __call__(self) -> object:
        """Run the timed sample."""
        return self._session.run(None, self._inputs)


class OpenVinoPeer:
    """OpenVINO as its documentation shows it for latency, with the precision that is asked for."""

    def __init__(self, path: Path, inputs: Arrays, threads: int, precision: str) -> None:
        import openvino as ov  # noqa: PLC0415  one runtime per process

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        compiled = ov.Core().compile_model(str(path), "CPU", settings)
        self._names = [port.get_any_name() for port in compiled.outputs]
        self._request: Any = compiled.create_infer_request()
        self._inputs = dict(inputs)

    def run(self, inputs: Arrays, /) -> Arrays:
        """Answer one sample."""
        found = self._request.infer(dict(inputs))
        arrays = [np.array(found[index]) for index in range(len(self._names))]
        return dict(zip(self._names, arrays, strict=True))

    def __call__(self) -> object:
        """Run the timed sample."""
        return self._request.infer(self._inputs, share_inputs=True, share_outputs=True)


class ShippedPeer:
    """The engine code that ships, set up as the manifest says."""

    def __init__(self, path: Path, inputs: Arrays, session: SessionOptions) -> None:
        self._runner = EngineRunner(path, session)
        self._inputs = inputs

    def run(self, inputs: Arrays, /) -> Arrays:
        """Answer one sample."""
        return self._runner.run(inputs)

    def __call__(self) -> object:
        """Run the timed sample."""
        return self._runner(self._inputs)
