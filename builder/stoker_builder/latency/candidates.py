"""Measuring the candidates against PyTorch eager and against FP32, all interleaved."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from stoker_builder.candidates.candidate import REFERENCE, Candidate, candidates_of
from stoker_builder.data import Samples, each
from stoker_builder.errors import BuildError
from stoker_builder.kernels.engines import EngineChild, EngineRunner
from stoker_builder.kernels.places import Place, Way
from stoker_builder.latency.concurrency import using
from stoker_builder.latency.conditions import Conditions, MachineWatch
from stoker_builder.latency.measure import MIN_ROUNDS, BurstRules, Lost, Variant, measure
from stoker_builder.latency.stats import LatencyStats, busy_share, speedup
from stoker_builder.latency.torch_process import TorchChild
from stoker_builder.latency.torch_routes import EAGER, EAGER_TUNED, ROUTES, TorchRoute
from stoker_builder.models.entrypoints import TorchModel
from stoker_builder.models.source import Inputs, SourceModel
from stoker_builder.rows import Pace
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Runtime

UNOPTIMISED: Final = "fp32-unoptimised"
BASELINES: Final = {
    **{name: route.title for name, route in ROUTES.items()},
    UNOPTIMISED: "FP32, unoptimised",
}
_OTHER_FP32: Final = candidates_of((), (Runtime.OPENVINO,))[-1]
MIN_SAMPLES: Final = 1000
TRIAL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Timings:
    """Latency of every variant, from one interleaved run, all with as many threads."""

    stats: Mapping[str, LatencyStats]
    conditions: Conditions = field(default_factory=Conditions)
    measured_on: str = ""

    def pace(self, candidate: str) -> Pace | None:
        """How fast a candidate is, compared; None when it was not timed.

        FP32 is ONNX Runtime's, and OpenVINO's where ONNX Runtime can not be timed.
        """
        own = self.stats.get(candidate)
        if own is None:
            return None
        ratios = {name: speedup(other, own) for name, other in self.stats.items()}
        eager, tuned = ratios.get(EAGER.name), ratios.get(EAGER_TUNED.name)
        fp32 = ratios.get(REFERENCE.name) or ratios.get(_OTHER_FP32.name)
        return Pace(
            stats=own,
            vs_eager=eager.ratio if eager else None,
            vs_eager_tuned=tuned.ratio if tuned else None,
            vs_fp32=fp32.ratio if fp32 else None,
            vs_fp32_low=fp32.low if fp32 else None,
            measured_on=self.measured_on,
        )


@dataclass(frozen=True, slots=True)
class TorchRoutes:
    """PyTorch's own ways to run the model.

    Attributes:
        wanted: which of them.
        calibration: samples for those that quantise.
        note: is told which one could not run the model, and why.
    """

    wanted: Sequence[TorchRoute]
    calibration: Samples
    note: Callable[[str], None]

    def in_floats(self) -> "TorchRoutes":
        """PyTorch as it comes, whose instructions are hidden nowhere but under AVX2."""
        return replace(self, wanted=[route for route in self.wanted if route.method == "eager"])


def time_candidates(  # noqa: PLR0913  what to time, where and how
    source: SourceModel,
    files: Mapping[Candidate, Path],
    inputs: Inputs,
    place: Place,
    *,
    routes: TorchRoutes,
    threads: int,
    seconds: float,
    unoptimised: bool,
    lost: Lost,
    progress: Callable[[float], None],
) -> Timings:
    """Time every candidate, and what it is compared with, with the engine code that ships.

    Args:
        source: where the candidates came from; eager is timed if that was PyTorch.
        files: of the candidates.
        inputs: one sample.
        place: with which instructions; eager is timed where those of FP32 are this machine's own.
        routes: PyTorch's own, which are left out where they can not run the model.
        threads: of each run, of everything alike.
        seconds: per variant, unless it has a thousand samples sooner.
        unoptimised: time FP32 without graph optimisation too.
        lost: is told of a candidate that can not be run, and why.
        progress: called with the share that is done.

    Raises:
        BuildError: ``MEASURE``, when FP32 or PyTorch can not run the model any more.
    """
    with ExitStack() as stack:
        variants: dict[str, Variant] = {}
        if source.torch is not None and place.floats_as_here:
            there = routes if place.way is Way.NATIVE else routes.in_floats()
            variants |= _started(source.torch, inputs, there, threads, stack)
        if unoptimised:
            plain = SessionOptions(graph_optimisation="disabled", intra_op_threads=threads)
            variants[UNOPTIMISED] = _variant(files[REFERENCE], inputs, plain)
        for candidate, path in files.items():
            try:
                session = using(candidate.session, threads)
                variants[candidate.name] = _opened(path, session, inputs, place, stack)
            except BuildError as error:
                if candidate == REFERENCE:
                    raise
                lost(candidate.name, error)
        rules = rules_for(seconds)
        watch = MachineWatch()
        replaceable = {candidate.name for candidate in files} - {REFERENCE.name}

        def drop(name: str, error: BuildError) -> None:
            if name not in replaceable:
                raise error
            lost(name, error)

        stats = measure(
            variants,
            lost=drop,
            each_round=watch.look,
            min_seconds=seconds,
            min_samples=MIN_SAMPLES,
            progress=progress,
            rules=rules,
        )
    conditions = watch.conditions(busy_share(stats.values()))
    return Timings(stats, conditions, place.name)


def rules_for(seconds: float) -> BurstRules:
    """A short measurement takes short bursts, or the rounds alone would make it long.

    One that is shorter than any worth quoting takes them as they come: it is a trial.
    """
    usual = BurstRules()
    burst_s = min(usual.seconds, seconds / MIN_ROUNDS)
    if seconds >= TRIAL_S:
        return replace(usual, seconds=burst_s)
    return replace(usual, seconds=burst_s, idle_gap_s=min(usual.idle_gap_s, burst_s), retries=0)


def _opened(
    path: Path, session: SessionOptions, inputs: Inputs, place: Place, stack: ExitStack
) -> Variant:
    if place.way is Way.NATIVE:
        return _variant(path, inputs, session)
    return stack.enter_context(EngineChild(path, session, inputs, place))


def _started(
    model: TorchModel, inputs: Inputs, routes: TorchRoutes, threads: int, stack: ExitStack
) -> dict[str, Variant]:
    variants: dict[str, Variant] = {}
    for route in routes.wanted:
        child = TorchChild(
            model.factory,
            inputs,
            route=route,
            calibration=(sample.inputs for sample in each(routes.calibration)),
            weights=model.weights,
            threads=threads,
        )
        try:
            variants[route.name] = stack.enter_context(child)
        except BuildError as error:
            # eager has to run; that PyTorch can not compile or quantise this one is a finding
            if route.method == "eager":
                raise
            routes.note(error.detail)
    return variants


def _variant(path: Path, inputs: Inputs, session: SessionOptions) -> Variant:
    engine = EngineRunner(path, session)
    return lambda: engine(inputs)
