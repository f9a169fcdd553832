"""Checks a Jetson, or a machine with an RTX GPU, and writes one file about it.

Started by ``scripts/jetson-check``. What can not be done says why, and the check goes on.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.board import machine, plans
from benchmarks.board.engines import HeldEngine, close_all, timed
from benchmarks.board.step import NotDoneError, Step, Steps
from benchmarks.board.text import document, without_places

from stoker_builder.latency.stats import LatencyStats
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime

ROOT: Final = Path(__file__).resolve().parents[2]
MODELS: Final = Path(__file__).parent / "models"
SECONDS: Final = 3.0
CPU, CUDA = "onnxruntime, fp32, processor", "onnxruntime, fp32, CUDA"


def main() -> None:
    """Check, write the file, and say where it is."""
    parser = argparse.ArgumentParser(prog="scripts/jetson-check", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("board-check.md"), metavar="FILE")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing, each engine")
    arguments = parser.parse_args()
    steps = Steps(_tell)
    engines: dict[str, HeldEngine] = {}
    with tempfile.TemporaryDirectory(prefix="stoker-board-") as folder:
        try:
            check(steps, engines, Path(folder))
            stats = steps.attempt("latency", partial(_timed, engines, arguments.seconds)) or {}
            plans.look_into_all(steps, {name: engines[name] for name in stats})
        finally:
            close_all(engines.values())
    told = {
        "schema": 1,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),  # noqa: UP017 - 3.10
        "steps": [asdict(step) for step in steps.all],
        "latency": {name: figures(one) for name, one in stats.items()},
    }
    places = {str(ROOT): "stoker", str(Path.home()): "~"}
    arguments.output.write_text(without_places(document(told), places), encoding="utf-8")
    sys.stdout.write(f"\n{arguments.output} has all of it: send us that file.\n")


def check(steps: Steps, engines: dict[str, HeldEngine], folder: Path) -> None:
    """Every step but the timing; the engines that can be timed are put into ``engines``."""
    known = None
    profile = steps.attempt("board", machine.board)
    with steps.step("NVIDIA's programs") as facts:
        machine.commands(facts)
    gpu_sm = steps.attempt("CUDA", machine.gpu)
    if profile is not None:
        found = profile.model_copy(update={"gpu_sm": gpu_sm or profile.gpu_sm})
        known = steps.attempt("target", partial(machine.target, found))
    place = plans.Place(folder, gpu_sm, known.workspace_bytes if known else None)
    available = steps.attempt("ONNX Runtime", machine.onnx_runtime) or ()
    if available:
        _load_onnx(steps, engines, CPU, SessionOptions())
    if "CUDAExecutionProvider" in available:
        _load_onnx(steps, engines, CUDA, SessionOptions(accelerators=("cuda",)))
    for runtime in (Runtime.TENSORRT, Runtime.TENSORRT_RTX):
        if steps.attempt(str(runtime), partial(machine.library, runtime)) is None:
            continue
        made = plans.check_runtime(steps, runtime, MODELS, place)
        engines.update(made)
        for name, engine in made.items():
            precision = name.split(", ")[1]
            with steps.step(f"answers: {name}") as facts:
                plans.agreed(engine, engines.get(CPU), precision, facts)


def figures(stats: LatencyStats) -> dict[str, float | int]:
    """What is kept of a latency."""
    return {
        "p50_ms": stats.p50_ms,
        "p95_ms": stats.p95_ms,
        "p99_ms": stats.p99_ms,
        "min_ms": stats.min_ms,
        "samples": stats.samples,
    }


def _load_onnx(
    steps: Steps, engines: dict[str, HeldEngine], name: str, session: SessionOptions
) -> None:
    with steps.step(f"load: {name}") as facts:
        engine = HeldEngine(MODELS / "fp32.onnx", ArtifactKind.ONNX, session)
        if session.accelerators and engine.providers[0] == "CPUExecutionProvider":
            engine.close()
            msg = "CUDA refused, and ONNX Runtime took the processor"
            raise NotDoneError(msg)
        engines[name] = engine
        facts["said"] = f"runs on {', '.join(engine.providers)}"


def _timed(
    engines: dict[str, HeldEngine], seconds: float, facts: dict[str, object]
) -> dict[str, LatencyStats]:
    if not engines:
        msg = "there is nothing that could be loaded"
        raise NotDoneError(msg)
    lost: dict[str, object] = {}
    stats = timed(engines, seconds, lost)
    facts |= lost
    gone = f"; ended meanwhile: {', '.join(lost)}" if lost else ""
    facts["said"] = f"of {len(stats)} engines, in turns{gone}"
    return stats


def _tell(step: Step) -> None:
    mark = "done" if step.done else "NOT DONE"
    sys.stdout.write(f"{mark:>8}  {step.name}: {step.said}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
