"""Collecting the report from what a build has found out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from stoker_builder.bench import Bench
from stoker_builder.latency.candidates import BASELINES
from stoker_builder.latency.stats import LatencyStats
from stoker_builder.report.document import (
    Baseline,
    Candidate,
    Compared,
    ConditionNotes,
    DataNotes,
    Figures,
    GateNotes,
    LayerDamage,
    MachineNotes,
    Report,
    SourceNotes,
    Start,
    TargetProfile,
)
from stoker_builder.rows import Row
from stoker_contract.manifest import Manifest

_QUANTILES: Final = 101
_DIGITS: Final = 5  # of a millisecond: below it no clock says anything
_LINE: Final = 256
_MOST_LAYERS: Final = 100
_PARAGRAPH: Final = 4096


def report_of(
    bench: Bench,
    rows: Sequence[Row],
    manifest: Manifest,
    profiles: Sequence[TargetProfile] = (),
) -> Report:
    """Collect the report of a finished build.

    Args:
        bench: what was found out.
        rows: of all targets.
        manifest: of the release.
        profiles: what was seen inside the artifacts that ship.
    """
    return Report(
        release=manifest.release,
        counter=manifest.counter,
        dev=manifest.dev,
        builder=manifest.builder,
        machine=_machine(bench),
        source=SourceNotes(
            kind=bench.source.kind,
            digest=bench.source.digest,
            notes=tuple(note[:_PARAGRAPH] for note in bench.source.notes),
        ),
        data=_data(bench),
        gates=_gates(bench),
        conditions=_conditions(bench),
        baselines=tuple(_baselines(bench)),
        candidates=tuple(_candidate(row) for row in rows),
        artifacts=manifest.artifacts,
        profiles=tuple(profiles),
        seconds={title: round(seconds, 3) for title, seconds in bench.seconds.items()},
    )


def _machine(bench: Bench) -> MachineNotes:
    machine = bench.machine
    return MachineNotes(
        cpu_model=machine.cpu_model[:_LINE],
        arch=machine.arch,
        isa=machine.isa,
        cores=machine.cores,
        memory_bytes=machine.memory_bytes,
        kernel=machine.kernel[:_LINE],
        python=machine.python,
        runtimes=machine.runtimes,
        summary=machine.summary[:_LINE],
    )


def _data(bench: Bench) -> DataNotes:
    data, parts = bench.data, bench.split
    return DataNotes(
        name=data.name[:_PARAGRAPH],
        note=data.note[:_PARAGRAPH],
        labelled=data.labelled,
        preprocessing=str(data.preprocessing)[:_PARAGRAPH],
        calibration=parts.calibration.record,
        certification=parts.certification.record,
        selection=parts.selection.record,
        duplicates_left_out=parts.duplicates,
    )


def _gates(bench: Bench) -> GateNotes:
    request = bench.request
    return GateNotes(
        metric=bench.metric.name[:_LINE],
        basis=bench.metric.basis,
        budget=request.budget,
        relative=request.relative,
        slice_budget=request.slice_budget,
        gate=request.gate,
        confidence=request.confidence,
        skipped=request.unsafe_skip_gates,
    )


def _baselines(bench: Bench) -> Iterator[Baseline]:
    for timings in bench.timings.values():
        for name, stats in timings.stats.items():
            if name in BASELINES:
                yield Baseline(
                    name=name,
                    title=BASELINES[name].strip(),
                    measured_on=timings.measured_on[:_LINE],
                    latency=figures_of(stats),
                )


def _conditions(bench: Bench) -> ConditionNotes:
    """What the machine did, whichever instructions it was allowed to use meanwhile."""
    everywhere = [timings.conditions for timings in bench.timings.values()]
    refusals = dict.fromkeys(said for one in everywhere for said in one.refusals)
    native = asdict(bench.native_timings.conditions)
    threads = bench.request.timed_threads
    return ConditionNotes(**{**native, "threads": threads, "refusals": tuple(refusals)})


def figures_of(stats: LatencyStats) -> Figures:
    """Latency as the report writes it."""
    return Figures(**_figures(stats))


def _figures(stats: LatencyStats) -> dict[str, Any]:
    bounds: Mapping[str, float | None] = {
        "p50_low_ms": stats.p50_bounds.low_ms,
        "p50_high_ms": stats.p50_bounds.high_ms,
        "p95_low_ms": stats.p95_bounds.low_ms,
        "p95_high_ms": stats.p95_bounds.high_ms,
        "p99_low_ms": stats.p99_bounds.low_ms,
        "p99_high_ms": stats.p99_bounds.high_ms,
    }
    quantiles = np.quantile(stats.samples_ms, np.linspace(0, 1, _QUANTILES))
    return {
        "p50_ms": stats.p50_ms,
        "p95_ms": stats.p95_ms,
        "p99_ms": stats.p99_ms,
        "min_ms": stats.min_ms,
        "samples": stats.samples,
        "contaminated_share": stats.contaminated_share,
        "quantiles_ms": tuple(round(float(value), _DIGITS) for value in quantiles),
        **bounds,
    }


def _candidate(row: Row) -> Candidate:
    pace = row.pace
    return Candidate(
        target=row.target,
        candidate=row.name,
        precision=row.precision.value,
        runtime=row.candidate.runtime.value,
        verdict=row.mark,
        shipped=row.shipped,
        rank=row.rank,
        why=row.why[:_PARAGRAPH],
        size_bytes=row.size_bytes,
        accuracy=row.accuracy,
        fusion=row.fusion,
        layers=row.layers,
        latency=None
        if pace is None
        else Compared(
            vs_eager=pace.vs_eager,
            vs_eager_tuned=pace.vs_eager_tuned,
            vs_fp32=pace.vs_fp32,
            vs_fp32_low=pace.vs_fp32_low,
            measured_on=pace.measured_on[:_LINE],
            **_figures(pace.stats),
        ),
        start=Start(**asdict(row.start)) if row.start else None,
        sensitivity=tuple(
            LayerDamage(name=one.name[:_LINE], op_type=one.op_type, damage=one.damage)
            for one in row.damages[:_MOST_LAYERS]
        ),
    )
