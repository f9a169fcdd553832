"""How an artifact uses the cores: threads within a run, against runs at the same time."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from stoker_builder.models.source import Inputs
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from stoker_engine.backends import open_engine
from stoker_engine.engine import Engine

Goal = Literal["latency", "throughput"]

_ROUNDS: Final = 5
_SAME: Final = 1.03  # two figures within this are one figure measured twice
_WARM_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Use:
    """So many runs at once, with so many threads each, and what came of it.

    Attributes:
        p50_ms: of one run, as its caller sees it.
        per_second: of all callers together.
    """

    threads: int
    parallel: int
    p50_ms: float
    p99_ms: float
    per_second: float


def best_use(uses: Sequence[Use], goal: Goal) -> Use:
    """The way to use the cores that serves a goal best; of equals the one with least threads.

    Args:
        uses: what was measured.
        goal: ``latency``, of one caller who has all cores; ``throughput``, of all callers.

    Raises:
        ValueError: nothing was measured.
    """
    if goal == "latency":
        alone = [use for use in uses if use.parallel == 1]
        least_ms = min(use.p50_ms for use in alone)
        good = [use for use in alone if use.p50_ms <= least_ms * _SAME]
    else:
        most = max(use.per_second for use in uses)
        good = [use for use in uses if use.per_second * _SAME >= most]
    return min(good, key=lambda use: (use.threads * use.parallel, use.p50_ms))


def ways_to_use(cores: int) -> Iterator[tuple[int, int]]:
    """Threads and parallel runs, in powers of two, that together do not exceed the cores."""
    powers = [1 << exponent for exponent in range(max(cores, 1).bit_length())]
    for parallel in powers:
        for threads in powers:
            if threads * parallel <= max(cores, 1):
                yield threads, parallel


def using(session: SessionOptions, threads: int, parallel: int = 1) -> SessionOptions:
    """A session that uses so many cores.

    The threads of a run that has them for itself spin between operators, which is a quarter of
    the time of a small transformer in ONNX Runtime; beside other runs they would be in their way.
    """
    of_its_own = session.runtime in {None, Runtime.ONNXRUNTIME}
    waits_awake = of_its_own and threads > 1 and parallel == 1
    return session.model_copy(
        update={
            "intra_op_threads": threads,
            "parallel_runs": parallel,
            "allow_spinning": waits_awake,
        }
    )


def measure_concurrency(  # noqa: PLR0913  what to run, and how long
    artifact: Path,
    inputs: Inputs,
    session: SessionOptions | None = None,
    *,
    kind: ArtifactKind = ArtifactKind.ONNX,
    cores: int,
    seconds: float,
) -> tuple[Use, ...]:
    """Run an artifact in every such way, in turns, each caller without a pause.

    Args:
        artifact: the file.
        inputs: one sample.
        session: how its runtime is set up; threads and parallel runs are varied.
        kind: the format of the file.
        cores: that may be used.
        seconds: for each way.

    Raises:
        EngineError: it can not be loaded, or a run failed.
    """
    base = session or SessionOptions()
    engines: dict[tuple[int, int], Engine] = {}
    taken: Mapping[tuple[int, int], _Taken]
    try:
        for threads, parallel in ways_to_use(cores):
            options = using(base, threads, parallel)
            engines[threads, parallel] = open_engine(str(artifact), kind, options)
        taken = {way: _Taken([], 0.0) for way in engines}
        for _ in range(_ROUNDS):
            for way, engine in engines.items():
                _run_parallel(engine, inputs, way[1], seconds / _ROUNDS, taken[way])
    finally:
        for engine in engines.values():
            engine.close()
    return tuple(_use(way, found) for way, found in taken.items())


@dataclass(slots=True)
class _Taken:
    samples_ns: list[int]
    seconds: float


def _use(way: tuple[int, int], taken: _Taken) -> Use:
    samples_ms = np.array(taken.samples_ns) / 1e6
    p50, p99 = (float(np.quantile(samples_ms, q)) for q in (0.5, 0.99))
    return Use(*way, p50_ms=p50, p99_ms=p99, per_second=len(samples_ms) / taken.seconds)


def _run_parallel(
    engine: Engine, inputs: Inputs, parallel: int, seconds: float, taken: _Taken
) -> None:
    """Let so many callers run for a while; all begin together, each ends its last run."""
    wanted = [spec.name for spec in engine.io.outputs]
    lists: list[list[int]] = [[] for _ in range(parallel)]
    failures: list[BaseException] = []
    ready = threading.Barrier(parallel)

    def call(samples_ns: list[int]) -> None:
        try:
            for _ in range(_WARM_RUNS):
                engine.run(inputs, wanted)
            ready.wait()
            end_ns = time.perf_counter_ns() + int(seconds * 1e9)
            while (began := time.perf_counter_ns()) < end_ns or not samples_ns:
                engine.run(inputs, wanted)
                samples_ns.append(time.perf_counter_ns() - began)
        except BaseException as error:  # noqa: BLE001  handed to the caller below
            failures.append(error)
            ready.abort()

    callers = [
        threading.Thread(target=call, args=(samples,), name=f"caller {number}")
        for number, samples in enumerate(lists)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for failure in failures:
        if not isinstance(failure, threading.BrokenBarrierError):
            raise failure
    taken.samples_ns += [sample for samples in lists for sample in samples]
    taken.seconds += max(sum(samples) for samples in lists) / 1e9
