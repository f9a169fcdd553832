"""Builds of the tiny models of ``support.builder_models`` that take little time."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from stoker_builder.data import load_data
from stoker_builder.latency.torch_routes import DEFAULT_ROUTES
from stoker_builder.models.source import ingest
from stoker_builder.request import BuildRequest
from stoker_contract.target import Runtime

MODELS = str(Path(__file__).parent / "builder_models.py")


def request_for(output: Path, **changes: object) -> BuildRequest:
    """A request for the tiny model that takes as little time as it can: one runtime, no PyTorch."""
    settings: dict[str, object] = {
        "model": f"{MODELS}:factory",
        "data": f"{MODELS}:dataset",
        "output": output,
        "name": "tiny",
        "version": "1.0.0",
        "counter": 1,
        "targets": ("x86-64-v3", "x86-64-vnni"),
        "latency_s": 0.1,
        "emulation_budget_s": 0.0,
        "baselines": False,
        "runtimes": (Runtime.ONNXRUNTIME,),
        "torch_routes": (),
    }
    return BuildRequest(**{**settings, **changes})  # type: ignore[arg-type]  # settings by name


EVERYTHING: Final[Mapping[str, object]] = MappingProxyType(
    {"runtimes": (Runtime.ONNXRUNTIME, Runtime.OPENVINO), "torch_routes": DEFAULT_ROUTES}
)
"""What a build tries unless told otherwise, for tests of that."""


def exported(function: str, folder: Path) -> Path:
    """The ONNX file of a factory of ``support.builder_models``."""
    example = load_data(f"{MODELS}:dataset", {"samples": "8"}).samples[0].inputs
    return ingest(f"{MODELS}:{function}", None, example, folder).path
