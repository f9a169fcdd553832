"""Jobs for build workers, workers, and outcomes, as small as they can be."""

import hashlib

from stoker_builder.tensorrt.settings import CompileSettings
from stoker_builder.workers.documents import (
    Blob,
    BuildJob,
    Evidence,
    JobOutcome,
    Software,
    WorkerDescription,
)
from stoker_builder.workers.store import JobStore
from stoker_contract.manifest import DType, EngineIO, TensorSpec
from stoker_contract.target import Arch, Runtime, Target

ONNX = b"a graph"
PLAN = b"a plan"
ORIN = "orin-nano-8gb-jp62"
THOR = "thor-t5000-jp72"
IO = EngineIO(
    inputs=(TensorSpec(name="x", dtype=DType.FP32, shape=(1, 3)),),
    outputs=(TensorSpec(name="y", dtype=DType.FP32, shape=(1, 2)),),
)


def blob(data: bytes) -> Blob:
    """What bytes are as a blob."""
    return Blob(digest=hashlib.sha256(data).hexdigest(), length=len(data))


def keep(store: JobStore, data: bytes) -> Blob:
    """Put bytes into a store."""
    store.blobs.put(blob(data), [data])
    return blob(data)


def job(onnx: bytes = ONNX, hardware_class: str = ORIN, **more: object) -> BuildJob:
    """A plan for a board."""
    return BuildJob.model_validate(
        {
            "hardware_class": hardware_class,
            "onnx": blob(onnx),
            "settings": CompileSettings(runtime=Runtime.TENSORRT),
            "target": Target(name=hardware_class, arch=Arch.AARCH64, gpu_sm="87"),
            **more,
        }
    )


def worker(name: str = "orin-1", *classes: str, **software: str) -> WorkerDescription:
    """A worker; its session follows from its name."""
    return WorkerDescription(
        name=name,
        session=hashlib.sha256(name.encode()).hexdigest()[:16],
        classes=classes or (ORIN,),
        software=Software.model_validate(
            {"arch": Arch.AARCH64, "tensorrt": "10.3.0", "l4t": "36.4.3", **software}
        ),
    )


def success(plan: bytes = PLAN, **more: object) -> JobOutcome:
    """A plan with its evidence."""
    return JobOutcome.model_validate(
        {
            "plan": blob(plan),
            "evidence": Evidence(version="10.3.0.26", io=IO, not_run="no GPU"),
            **more,
        }
    )
