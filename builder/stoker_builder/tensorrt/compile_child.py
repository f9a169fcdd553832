"""Compiles one plan; started by :mod:`stoker_builder.tensorrt.compiler` in a process of its own.

The compiler is native code that can crash on a graph, and takes gigabytes that are given back
only when its process ends.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt import network as steps
from stoker_builder.tensorrt.layers import PlanLayers, is_placement, layers_of
from stoker_builder.tensorrt.settings import CompileJob, CompileReport, Validity
from stoker_contract.codes import ReasonCode
from stoker_contract.target import Runtime
from stoker_engine.engine import EngineError
from stoker_engine.tensorrt_library import (
    Binding,
    Library,
    Messages,
    import_library,
    logger_of,
    meaning,
)


def compile_job(job: CompileJob, library: Library) -> CompileReport:
    """Parse, configure, build and write the plan, and the timing cache where one was given.

    Raises:
        BuildError: ``TENSORRT_GRAPH``, ``COMPILE`` or ``UNSUPPORTED_OP``.
    """
    began = time.monotonic()
    logger, messages = logger_of(library)
    builder = _builder(library, logger, messages)
    network = steps.create_network(library, builder, job.settings)
    steps.parse(library, network, logger, Path(job.onnx).read_bytes(), messages)
    config = steps.configure(library, builder, network, job.settings)
    heard = messages.take()
    _use_timing_cache(config, job.timing_cache)
    messages.take()  # a cache that is refused, or of no use without a GPU, explains no failure
    plan = builder.build_serialized_network(network, config)
    said = (*heard, *messages.take())
    if plan is None:
        raise _stopped(said)
    data = bytes(plan)
    Path(job.plan).write_bytes(data)
    _keep_timing_cache(config, job.timing_cache)
    validity = validity_of(library, data)
    # TensorRT has compiled for the GPU of this machine, so there is one
    is_here = job.settings.runtime is Runtime.TENSORRT or validity is Validity.VALID
    return CompileReport(
        version=str(library.__version__),
        io=steps.io_of(network),
        layers=network.num_layers,
        seconds=time.monotonic() - began,
        validity=validity,
        warnings=tuple(text for text in said if not is_placement(text)),
        inspected=inspect(library, data, said) if is_here else None,
    )


def validity_of(library: Library, plan: bytes) -> Validity:
    """Ask the runtime of the same library whether it would run a plan, without loading it."""
    logger, messages = logger_of(library)
    runtime = library.Runtime(logger)
    if not hasattr(runtime, "get_engine_validity"):
        return Validity.NOT_ASKED
    messages.take()
    validity, diagnostics = runtime.get_engine_validity(plan)
    if validity != library.EngineValidity.INVALID:
        return Validity.VALID
    reason = meaning(messages.take(), ReasonCode.LOAD_ERROR)
    if reason is ReasonCode.NO_GPU:
        return Validity.NO_GPU
    wrong_gpu = int(library.EngineInvalidityDiagnostics.UNSUPPORTED_CC)
    return Validity.NOT_HERE if int(diagnostics) == wrong_gpu else Validity.REFUSED


def inspect(library: Library, plan: bytes, said: Sequence[str] = ()) -> PlanLayers | None:
    """Load a plan on this machine's GPU and ask what its layers became; None if it does not load.

    Args:
        library: the TensorRT that compiled it.
        plan: with detailed verbosity.
        said: its messages meanwhile.
    """
    logger, messages = logger_of(library)
    runtime = library.Runtime(logger)
    runtime.engine_host_code_allowed = False
    engine = runtime.deserialize_cuda_engine(plan)
    messages.take()
    if engine is None:
        return None
    form = library.LayerInformationFormat.JSON
    return layers_of(str(engine.create_engine_inspector().get_engine_information(form)), said)


def _builder(library: Library, logger: Binding, messages: Messages) -> Binding:
    try:
        return library.Builder(logger)
    except (TypeError, RuntimeError):  # what the binding makes of a null pointer
        raise _stopped(messages.take()) from None


def _stopped(said: Sequence[str]) -> BuildError:
    detail = "; ".join(said[-3:])[:600] or "TensorRT gives no reason"
    if meaning(said, ReasonCode.LOAD_ERROR) is ReasonCode.NO_GPU:
        hint = "send this target to a worker that has the GPU"
        return BuildError(BuildCode.NO_COMPILER, f"no GPU to compile on: {detail}", hint)
    hint = "the other candidates go on; use another precision for this target"
    return BuildError(BuildCode.COMPILE, detail, hint)


def _use_timing_cache(config: Binding, path: str | None) -> None:
    if path is None:
        return
    present = Path(path).read_bytes() if Path(path).exists() else b""
    # one of another library or GPU is refused, and then this build starts an empty one
    for data in (present, b""):
        if config.set_timing_cache(config.create_timing_cache(data), False):  # noqa: FBT003
            return


def _keep_timing_cache(config: Binding, path: str | None) -> None:
    cache = None if path is None else config.get_timing_cache()
    if path is None or cache is None:
        return
    fresh = Path(f"{path}.{os.getpid()}")
    fresh.write_bytes(cache.serialize())
    fresh.replace(path)


def main() -> None:
    """Do the job on standard input and say on standard output how it went."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print where they like
    try:
        job = CompileJob.parse(sys.stdin.buffer.read())
        report = compile_job(job, import_library(job.settings.runtime))
    except BuildError as error:
        report = CompileReport(stopped=str(error.code), detail=f"{error.detail}\n{error.hint}")
    except EngineError as error:
        report = CompileReport(stopped=str(BuildCode.NO_COMPILER), detail=f"{error.detail}\n")
    answers.write(report.encode())
    answers.close()


if __name__ == "__main__":
    main()
