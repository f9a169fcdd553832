"""Figures and verdicts as words: the same in the table, in Markdown and on the page. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from stoker_builder.kernels.isa import AMX
from stoker_builder.report.document import Baseline, Candidate, Report
from stoker_builder.rows import Mark
from stoker_contract.manifest import Accuracy, Fusion, Precision

VERDICTS: Final[Mapping[Mark, str]] = {
    Mark.REFERENCE: "What the others are compared with.",
    Mark.PASS: "Certified: what it may lose is within the budget, at the stated confidence.",
    Mark.FAIL: "Refused: it loses more than the budget allows.",
    Mark.INCONCLUSIVE: "Not certified: too few samples to tell. The reason says how many would.",
    Mark.NOT_FUSED: "Refused unheard: too much of it still runs in floating point.",
    Mark.SCREENED: "Not certified: another was better on the selection samples.",
    Mark.NOT_JUDGED: "Not judged: it could not be made, or not be measured here.",
    Mark.SKIPPED: "Not judged: the gates were skipped.",
}

# below so many milliseconds, so many digits behind the point
_DIGITS: Final = ((1, 3), (10, 2), (100, 1))


def verdict(row: Candidate) -> str:
    """The verdict of one row in a word or two."""
    if row.shipped:
        return "SHIPS" if row.rank <= 1 else "ships too"
    return row.verdict.value.lower().replace("_", " ")


def title(row: Candidate) -> str:
    """A candidate; its name tells what runs it, where that is not ONNX Runtime."""
    return row.candidate


def times(ratio: float | None) -> str:
    """A speed-up."""
    return "" if ratio is None else f"{ratio:.1f}x"


def milliseconds(value: float | None) -> str:
    """A duration with three digits, three behind the point at most."""
    if value is None:
        return ""
    digits = next((digits for limit, digits in _DIGITS if value < limit), 0)
    return f"{value:.{digits}f}"


def points(share: float | None) -> str:
    """A loss of accuracy in percentage points, with its sign."""
    return "" if share is None else f"{100 * share:+.2f}"


def value(reached: float, accuracy: Accuracy) -> str:
    """What a model reaches, in the unit of the metric."""
    return f"{reached:.2%}" if accuracy.span == 1 else f"{reached:.4g}"


def megabytes(size: int) -> str:
    """A size."""
    return f"{size / 1e6:.2f}" if size < 10_000_000 else f"{size / 1e6:.1f}"  # noqa: PLR2004  digits


def integer_share(fusion: Fusion) -> str:
    """Share of the multiplications in integers; at most that, where only the graph was seen."""
    most = "≤" if fusion.basis == "graph" else ""
    return f"{most}{fusion.quantised_mac_share:.0%}"


def cells(row: Candidate) -> dict[str, str]:
    """One row of the table, by column."""
    latency, start, fusion = row.latency, row.start, row.fusion
    accuracy = None if row.verdict is Mark.REFERENCE else row.accuracy
    return {
        "": title(row),
        "verdict": verdict(row),
        "MB": megabytes(row.size_bytes) if row.size_bytes else "",
        "p50 ms": milliseconds(latency.p50_ms if latency else None),
        "p95 ms": milliseconds(latency.p95_ms if latency else None),
        "p99 ms": milliseconds(latency.p99_ms if latency else None),
        "vs eager": times(latency.vs_eager if latency else None),
        "vs tuned": times(latency.vs_eager_tuned if latency else None),
        "loss pp": points(accuracy.loss if accuracy else None),
        "bound": points(accuracy.loss_bound if accuracy else None),
        "int8": integer_share(fusion) if fusion else "",
        "layers": row.layers.words if row.layers else "",
        "load ms": milliseconds(start.load_ms if start else None),
        "RAM MB": f"{start.load_peak_bytes / 1e6:.0f}" if start else "",
    }


def compared_with(report: Report) -> tuple[Baseline, ...]:
    """What the tables begin with: baselines of the run that the first ratios come from."""
    held = {entry.measured_on for entry in report.baselines}
    ran = (row.latency.measured_on for row in report.candidates if row.latency)
    place = next((name for name in ran if name in held), None)
    return tuple(one for one in report.baselines if place is None or one.measured_on == place)


def captions(report: Report) -> Iterator[str]:
    """What has to be known to read the table."""
    threads = report.conditions.threads
    used = "one thread" if threads == 1 else f"{threads} threads"
    yield f"{report.machine.summary}; batch 1, {used}, interleaved"
    gates, samples = report.gates, report.data.certification.samples
    yield f"{gates.metric} on {samples} held-out samples; bound at {gates.confidence:.0%}"
    if report.data.note:
        yield report.data.note
    if flattered := ", ".join(_flattered(report)):
        yield f"{flattered}: answered and timed with {AMX}, which such devices need not have"


def _flattered(report: Report) -> dict[str, None]:
    """Targets whose artifacts ran here on tiles that the target does not ask for.

    Tiles multiply integers exactly, as VNNI does: answers are the devices' own, times are not.
    """
    return {
        artifact.target.name: None
        for artifact in report.artifacts
        if artifact.accuracy is not None
        and artifact.precision is not Precision.FP32
        and artifact.accuracy.certified_on == f"native {AMX}"
        and AMX not in artifact.target.isa
    }


def warnings(report: Report) -> Iterator[str]:
    """What forbids to quote or to ship this."""
    for refusal in report.conditions.refusals:
        yield f"do not quote the latency: {refusal}"
    if report.dev:
        yield "the gates were skipped: a production device refuses this release"


def certified_on(row: Candidate) -> str:
    """Whose kernels answered."""
    return row.accuracy.certified_on if row.accuracy else "nothing"
