"""Profiling an artifact with the profiler of the runtime that runs it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Inputs
from stoker_builder.profiling import onnxruntime_profile, openvino_profile
from stoker_builder.profiling.spans import Recording, Span
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime, runtime_of

_RUNS: Final = 20
_Recorder = Callable[[Path, Inputs, SessionOptions, int], tuple[Span, ...]]
_RECORDERS: Final[Mapping[Runtime, _Recorder]] = {
    Runtime.ONNXRUNTIME: onnxruntime_profile.record,
    Runtime.OPENVINO: openvino_profile.record,
}


def record_artifact(  # noqa: PLR0913  what to run, and how
    path: Path,
    inputs: Inputs,
    session: SessionOptions | None = None,
    *,
    title: str,
    kind: ArtifactKind = ArtifactKind.ONNX,
    runs: int = _RUNS,
) -> Recording:
    """Record some warm runs.

    Args:
        path: the artifact.
        inputs: one sample.
        session: how its runtime is set up.
        title: what this is, for people.
        kind: the format of the file.
        runs: how many.

    Raises:
        BuildError: ``MEASURE``, no profiler for its runtime; or it can not be run.
    """
    options = session or SessionOptions()
    runtime = runtime_of(kind, options.runtime)
    recorder = _RECORDERS.get(runtime)
    if recorder is None:
        detail = f"there is no profiler for {runtime} on a processor"
        raise BuildError(BuildCode.MEASURE, detail, "profile it with ONNX Runtime or OpenVINO")
    return Recording(title, runtime.value, recorder(path, inputs, options, runs))
