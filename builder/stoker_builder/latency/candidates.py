"""Measuring the candidates against PyTorch eager and against FP32, all interleaved."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stoker_builder.candidates.recipes import FP32
from stoker_builder.latency.conditions import Conditions, MachineWatch
from stoker_builder.latency.eager import TUNED_ALLOCATOR, EagerChild
from stoker_builder.latency.measure import MIN_ROUNDS, BurstRules, Variant, measure
from stoker_builder.latency.stats import LatencyStats, busy_share, speedup
from stoker_builder.models.source import Inputs, SourceModel
from stoker_builder.rows import Pace
from stoker_contract.manifest import SessionOptions
from stoker_engine.onnxruntime_backend import OnnxRuntimeEngine

EAGER: Final = "eager"
EAGER_TUNED: Final = "eager-tuned"
UNOPTIMISED: Final = "fp32-unoptimised"
BASELINES: Final = {
    EAGER: "PyTorch eager",
    EAGER_TUNED: "  allocator tuned",
    UNOPTIMISED: "FP32, unoptimised",
}
MIN_SAMPLES: Final = 1000


@dataclass(frozen=True, slots=True)
class Timings:
    """Latency of every variant, from one interleaved run, all with one thread."""

    stats: Mapping[str, LatencyStats]
    conditions: Conditions = field(default_factory=Conditions)

    def pace(self, candidate: str) -> Pace | None:
        """How fast a candidate is, compared; None when it was not timed."""
        own = self.stats.get(candidate)
        if own is None:
            return None
        ratios = {name: speedup(other, own) for name, other in self.stats.items()}
        eager, tuned, fp32 = (ratios.get(name) for name in (EAGER, EAGER_TUNED, FP32))
        return Pace(
            stats=own,
            vs_eager=eager.ratio if eager else None,
            vs_eager_tuned=tuned.ratio if tuned else None,
            vs_fp32=fp32.ratio if fp32 else None,
            vs_fp32_low=fp32.low if fp32 else None,
        )


def time_candidates(  # noqa: PLR0913  what to time, and how
    source: SourceModel,
    files: Mapping[str, Path],
    inputs: Inputs,
    *,
    seconds: float,
    unoptimised: bool,
    progress: Callable[[float], None],
) -> Timings:
    """Time every file, and what it is compared with, with the engine code that ships.

    Args:
        source: where the candidates came from; eager is timed if that was PyTorch.
        files: by candidate; FP32 is among them.
        inputs: one sample.
        seconds: per variant, unless it has a thousand samples sooner.
        unoptimised: time FP32 without graph optimisation too.
        progress: called with the share that is done.

    Raises:
        BuildError: ``MEASURE``, when PyTorch can not run the model any more.
    """
    with ExitStack() as stack:
        variants: dict[str, Variant] = {}
        if source.torch is not None:
            for name, allocator in ((EAGER, {}), (EAGER_TUNED, TUNED_ALLOCATOR)):
                child = EagerChild(
                    source.torch.factory, inputs, weights=source.torch.weights, allocator=allocator
                )
                variants[name] = stack.enter_context(child)
        if unoptimised:
            plain = SessionOptions(graph_optimisation="disabled")
            variants[UNOPTIMISED] = _variant(files[FP32], inputs, plain)
        for name, path in files.items():
            variants[name] = _variant(path, inputs, SessionOptions())
        # a short measurement takes short bursts, or the rounds alone would make it long
        rules = BurstRules(seconds=min(BurstRules().seconds, seconds / MIN_ROUNDS))
        watch = MachineWatch()
        stats = measure(
            variants,
            each_round=watch.look,
            min_seconds=seconds,
            min_samples=MIN_SAMPLES,
            progress=progress,
            rules=rules,
        )
    return Timings(stats, watch.conditions(busy_share(stats.values())))


def _variant(path: Path, inputs: Inputs, session: SessionOptions) -> Variant:
    engine = OnnxRuntimeEngine(str(path), session)
    names = [spec.name for spec in engine.io.outputs]
    return lambda: engine.run(inputs, names)
