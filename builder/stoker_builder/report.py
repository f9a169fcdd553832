"""The report beside a release: everything that was measured, for people and for machines."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stoker_builder.bench import Bench
from stoker_builder.latency.candidates import BASELINES
from stoker_builder.latency.stats import LatencyStats
from stoker_builder.rows import Mark, Row
from stoker_contract.manifest import Manifest

COLUMNS = (
    "target",
    "candidate",
    "verdict",
    "size MB",
    "p50 ms",
    "p99 ms",
    "vs eager",
    "vs tuned",
    "loss (bound) pp",
    "quantised",
    "why not",
)


def report_of(bench: Bench, rows: Sequence[Row], manifest: Manifest) -> dict[str, Any]:
    """Collect the report as a JSON object."""
    request = bench.request
    stats = bench.timings.stats if bench.timings else {}
    return {
        "schema_version": 1,
        "release": manifest.release,
        "counter": manifest.counter,
        "machine": bench.machine.to_object(),
        "source": {
            "kind": bench.source.kind,
            "digest": bench.source.digest,
            "notes": list(bench.source.notes),
        },
        "data": {
            "name": bench.data.name,
            "note": bench.data.note,
            "labelled": bench.data.labelled,
            "preprocessing": bench.data.preprocessing,
            "calibration": bench.split.calibration.record.to_object(),
            "selection": bench.split.selection.record.to_object(),
            "certification": bench.split.certification.record.to_object(),
            "duplicates_left_out": bench.split.duplicates,
        },
        "gates": {
            "metric": bench.metric.name,
            "basis": bench.metric.basis,
            "budget": request.budget,
            "relative": request.relative,
            "slice_budget": request.slice_budget,
            "gate": request.gate,
            "confidence": request.confidence,
            "skipped": request.unsafe_skip_gates,
        },
        "latency": {name: _latency(entry) for name, entry in stats.items()},
        "busy_share": bench.timings.busy_share if bench.timings else 0.0,
        "candidates": [_candidate(row) for row in rows],
        "artifacts": [artifact.to_object() for artifact in manifest.artifacts],
        "seconds": {title: round(seconds, 3) for title, seconds in bench.seconds.items()},
    }


def to_json(report: Mapping[str, Any]) -> bytes:
    """Encode a report."""
    return json.dumps(report, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"


def to_markdown(bench: Bench, rows: Sequence[Row], manifest: Manifest) -> bytes:
    """Write the report for people."""
    certified = len(bench.split.certification)
    lines = [
        f"# {manifest.release}",
        "",
        f"Measured on {bench.machine.summary}; one thread, batch 1, interleaved.",
        f"Certified on {certified} samples of {bench.data.name} ({bench.metric.name}).",
    ]
    if bench.timings and bench.timings.caveat:
        lines.append(f"**Latency: {bench.timings.caveat}.**")
    if bench.request.unsafe_skip_gates:
        lines.append("**The gates were skipped: this release is for development only.**")
    lines += ["", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    lines += ["", "| compared with | p50 ms | p99 ms | samples |", "|---|---|---|---|"]
    for name, stats in (bench.timings.stats if bench.timings else {}).items():
        if name in BASELINES:
            figures = f"{stats.p50_ms:.2f} | {stats.p99_ms:.2f} | {stats.samples}"
            lines.append(f"| {BASELINES[name]} | {figures} |")
    lines += ["", *(f"- {note}" for note in bench.source.notes)]
    return "\n".join(lines).encode() + b"\n"


def cells(row: Row) -> tuple[str, ...]:
    """The cells of one row, in the order of ``COLUMNS``."""
    pace, accuracy, fusion = row.pace, row.accuracy, row.fusion
    return (
        row.target,
        row.candidate,
        "SHIPS" if row.shipped else row.mark.value.lower().replace("_", " "),
        f"{row.size_bytes / 1e6:.2f}" if row.size_bytes else "",
        f"{pace.stats.p50_ms:.2f}" if pace else "",
        f"{pace.stats.p99_ms:.2f}" if pace else "",
        _times(pace.vs_eager if pace else None),
        _times(pace.vs_eager_tuned if pace else None),
        ""
        if accuracy is None or row.mark is Mark.REFERENCE
        else f"{100 * accuracy.loss:+.2f} ({100 * accuracy.loss_bound:+.2f})",
        f"{fusion.quantised_mac_share:.0%}" if fusion else "",
        row.why,
    )


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}x"


def _candidate(row: Row) -> dict[str, Any]:
    pace = row.pace
    return {
        "target": row.target,
        "candidate": row.candidate,
        "precision": row.precision.value,
        "verdict": row.mark.value,
        "shipped": row.shipped,
        "why": row.why,
        "size_bytes": row.size_bytes,
        "accuracy": row.accuracy.to_object() if row.accuracy else None,
        "fusion": row.fusion.to_object() if row.fusion else None,
        "latency": None
        if pace is None
        else {
            **_latency(pace.stats),
            "vs_eager": pace.vs_eager,
            "vs_eager_tuned": pace.vs_eager_tuned,
            "vs_fp32": pace.vs_fp32,
            "vs_fp32_low": pace.vs_fp32_low,
        },
    }


def _latency(stats: LatencyStats) -> dict[str, Any]:
    return {
        "p50_ms": stats.p50_ms,
        "p95_ms": stats.p95_ms,
        "p99_ms": stats.p99_ms,
        "p99_high_ms": stats.p99_bounds.high_ms,
        "min_ms": stats.min_ms,
        "samples": stats.samples,
        "contaminated_share": stats.contaminated_share,
    }
