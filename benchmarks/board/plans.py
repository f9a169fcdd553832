"""Plans of the check: compiled here, looked at, and loaded by the engine that ships."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.board.engines import HeldEngine, compared
from benchmarks.board.step import NotDoneError, Steps

from stoker_builder.errors import BuildError
from stoker_builder.tensorrt.compiler import Compiled, compile_plan
from stoker_builder.tensorrt.settings import CompileSettings
from stoker_contract.manifest import SessionOptions
from stoker_contract.plan_header import read_plan_header, why_plan_unfit
from stoker_contract.target import ArtifactKind, Runtime

ELSEWHERE: Final = "89"
"""What TensorRT-RTX compiles for where there is no GPU: it shows that it compiles."""
# of the cosine between the answers of a plan and those of FP32
_CLOSE: Final = {"fp16": 0.999, "int8": 0.99}

_KINDS: Final = 4


@dataclass(frozen=True)
class Place:
    """Where plans are compiled and run.

    Attributes:
        gpu_sm: of the GPU that is here; None where there is none.
        workspace_bytes: what a layer may use; None where nobody knows the board.
    """

    folder: Path
    gpu_sm: str | None
    workspace_bytes: int | None = None


def compiled(graph: Path, place: Place, runtime: Runtime, facts: dict[str, object]) -> Compiled:
    """A plan for the GPU that is here."""
    elsewhere = runtime is Runtime.TENSORRT_RTX and place.gpu_sm is None
    settings = CompileSettings(
        runtime=runtime,
        compute_capability=ELSEWHERE if elsewhere else None,
        workspace_bytes=place.workspace_bytes,
    )
    plan = place.folder / f"{graph.stem}.{runtime}.plan"
    try:
        made = compile_plan(graph, plan, settings, timing_cache=place.folder / f"{runtime}.timing")
    except BuildError as error:
        msg = f"{error.code}: {error.detail}; {error.hint}"
        raise NotDoneError(msg) from None
    facts |= {"validity": made.validity, "warnings": made.warnings, "layers": made.layers}
    where = f" for compute capability {ELSEWHERE}, as there is no GPU" if elsewhere else ""
    size = plan.stat().st_size
    inside = f"; {made.inspected.words}" if made.inspected else ""
    facts |= {"inspected": made.inspected.to_object() if made.inspected else None}
    facts["said"] = f"{size / 1e6:.2f} MB in {made.seconds:.1f} s{where}{inside}"
    return made


def looked_at(made: Compiled, gpu_sm: str | None, facts: dict[str, object]) -> None:
    """The header, read as the worker reads it, from the bytes alone."""
    header = read_plan_header(made.path.read_bytes())
    unfit = why_plan_unfit(header, header.runtime, version=None, gpu_sm=gpu_sm)
    if unfit is not None:
        raise NotDoneError(unfit)
    made_for = f", for {', '.join(header.gpu_sms)}" if header.gpu_sms else ""
    facts["said"] = f"{header.runtime} {header.version}, {header.length} bytes{made_for}"


def loaded(made: Compiled, facts: dict[str, object], *, cuda_graph: bool = False) -> HeldEngine:
    """The engine, which has answered the samples once."""
    session = SessionOptions(runtime=made.header.runtime, cuda_graph=cuda_graph)
    engine = HeldEngine(made.path, ArtifactKind.TENSORRT_PLAN, session)
    facts["said"] = f"loaded, and answered for the first time, in {engine.load_s:.2f} s"
    return engine


def agreed(
    engine: HeldEngine, reference: HeldEngine | None, precision: str, facts: dict[str, object]
) -> None:
    """Whether its answers are those of ONNX Runtime in FP32."""
    if reference is None:
        msg = "there is no ONNX Runtime to compare with"
        raise NotDoneError(msg)
    found = compared(engine.answers, reference.answers)
    facts |= found
    said = ", ".join(f"{name} {value:.5g}" for name, value in found.items())
    if not found["least cosine"] >= _CLOSE[precision]:
        msg = f"its answers are too far from those of FP32: {said}"
        raise NotDoneError(msg)
    facts["said"] = said


def look_into_all(steps: Steps, engines: Mapping[str, HeldEngine]) -> None:
    """The layers of every plan that tells them; afterwards it is of no use for timing."""
    for name, engine in engines.items():
        if engine.tells_layers:
            steps.attempt(f"layers: {name}", partial(_looked_into, engine))


def _looked_into(engine: HeldEngine, facts: dict[str, object]) -> None:
    """Which of its layers take the time of a run."""
    found = engine.layers()
    if found is None:
        msg = "its library tells nothing of its layers"
        raise NotDoneError(msg)
    facts["operators"] = found.to_object()
    kinds = ", ".join(f"{one.op_type} {one.share:.0%}" for one in found.by_type[:_KINDS])
    most = found.nodes[0]
    facts["said"] = f"{found.total_ms:.3f} ms: {kinds}; most in {most.name}, {most.ms:.3f} ms"


def check_runtime(
    steps: Steps, runtime: Runtime, models: Path, place: Place
) -> dict[str, HeldEngine]:
    """Every step for the plans of one runtime; the engines that can be timed."""
    engines: dict[str, HeldEngine] = {}
    for precision in _CLOSE:
        name = f"{runtime}, {precision}"
        graph = models / f"{precision}.onnx"
        made = steps.attempt(f"compile: {name}", partial(compiled, graph, place, runtime))
        if made is None:
            continue
        with steps.step(f"header: {name}") as facts:
            looked_at(made, place.gpu_sm, facts)
        for suffix, graphed in (("", False), (", CUDA graph", True)):
            title = f"{name}{suffix}"
            engine = steps.attempt(f"load: {title}", partial(loaded, made, cuda_graph=graphed))
            if engine is None:
                break
            engines[title] = engine
    return engines
