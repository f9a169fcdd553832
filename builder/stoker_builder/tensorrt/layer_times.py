"""Where the time of a plan's run goes, layer by layer, as TensorRT's own profiler tells it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.profiling.spans import Recording, Span, profile_of
from stoker_builder.tensorrt.layers import kinds_of
from stoker_contract.target import Runtime
from stoker_engine.engine import Array
from stoker_engine.tensorrt_backend import TensorRtEngine

_WARM_RUNS: Final = 5
_RUNS: Final = 20
_CHARACTERS: Final = 128  # the name of a fused layer has the names of all its parts
_UNKNOWN: Final = "layer"


def time_layers(
    engine: TensorRtEngine, inputs: Mapping[str, Array], runtime: Runtime
) -> OperatorProfile | None:
    """Run a plan some times with the profiler on; None where it says nothing.

    Args:
        engine: without a CUDA graph. It stays slower afterwards.
        inputs: one sample.
        runtime: which of the two libraries runs it.

    Raises:
        EngineError: it does not run.
    """
    kinds = kinds_of(engine.layers())
    wanted = [spec.name for spec in engine.io.outputs]
    told: list[tuple[str, float]] = []
    spans: list[Span] = []
    engine.tell_layers(lambda name, ms: told.append((name, ms)))
    for run in range(-_WARM_RUNS, _RUNS):
        told.clear()
        engine.run(inputs, wanted)
        if run >= 0:
            spans += _spans(run, told, kinds)
    return profile_of(Recording("", runtime.value, tuple(spans))) if spans else None


def _spans(run: int, told: Sequence[tuple[str, float]], kinds: Mapping[str, str]) -> Iterator[Span]:
    """The layers of one run, one after the other: only durations are told."""
    begin_us = 0.0
    for name, ms in told:
        kind = kinds.get(name) or _UNKNOWN
        yield Span(run, name[:_CHARACTERS], kind[:_CHARACTERS], begin_us, ms * 1000)
        begin_us += ms * 1000
