"""The report as Markdown: the table, why not, what it was compared with, and the provenance."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.report.document import Report
from stoker_builder.report.words import (
    captions,
    cells,
    certified_on,
    compared_with,
    milliseconds,
    title,
    warnings,
)

_SPECIAL: Final = str.maketrans({c: f"\\{c}" for c in "\\|`*_[]<>#"})


def to_markdown(report: Report) -> bytes:
    """Write the report for people who read text."""
    parts = [
        f"# {_text(report.release)}",
        "\n".join(f"{_text(line)}  " for line in captions(report)),
        *(f"**{_text(line)}.**" for line in warnings(report)),
        *_targets(report),
        _baselines(report),
        *_profiles(report),
        _provenance(report),
    ]
    return "\n\n".join(part for part in parts if part).encode() + b"\n"


def _targets(report: Report) -> Iterator[str]:
    for target in report.targets:
        rows = report.rows_of(target)
        filled = [cells(row) for row in rows]
        shown = [name for name in filled[0] if name == "" or any(row[name] for row in filled)]
        yield f"## {_text(target)}"
        if shipped := report.shipped_for(target):
            yield f"Ships **{_text(title(shipped))}**, certified on {_text(certified_on(shipped))}."
        yield _table(shown, ([row[name] for name in shown] for row in filled))
        refused = [f"- {_text(title(row))}: {_text(row.why)}" for row in rows if row.why]
        yield "\n".join(refused)


def _baselines(report: Report) -> str:
    baselines = compared_with(report)
    if not baselines:
        return ""
    rows = [
        (
            entry.title,
            milliseconds(entry.latency.p50_ms),
            milliseconds(entry.latency.p95_ms),
            milliseconds(entry.latency.p99_ms),
            str(entry.latency.samples),
        )
        for entry in baselines
    ]
    columns = ("compared with", "p50 ms", "p95 ms", "p99 ms", "samples")
    return "## Compared with\n\n" + _table(columns, rows)


def _profiles(report: Report) -> Iterator[str]:
    for profile in report.profiles:
        for found in (profile.before, profile.after):
            if found is not None:
                yield _operators(profile.target, found)


def _operators(target: str, profile: OperatorProfile) -> str:
    rows = [
        (one.op_type, str(one.calls), milliseconds(one.ms), f"{one.share:.0%}")
        for one in profile.by_type
    ]
    heading = f"## Where the time goes: {_text(target)}, {_text(profile.title)}"
    return f"{heading}\n\n" + _table(("operator", "calls", "ms", "share"), rows)


def _provenance(report: Report) -> str:
    data = report.data
    lines = [
        f"model: {report.source.kind}, SHA-256 {report.source.digest}",
        *report.source.notes,
        f"data: {data.name}; {data.preprocessing}",
        f"gate: {report.gates.metric} within {100 * report.gates.budget:g} points",
        f"calibrated on {data.calibration.samples} samples, {data.calibration.digest}",
        f"certified on {data.certification.samples} samples, {data.certification.digest}",
        f"made with {report.builder}",
    ]
    return "## Provenance\n\n" + "\n".join(f"- {_text(line)}" for line in lines)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", *("--:" for _ in columns[1:])]]
    lines += [[_text(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(words: str) -> str:
    """Text that somebody else wrote, so that it stays text."""
    return " ".join(words.split()).translate(_SPECIAL)
