"""Where a release came from, and on what machine its figures were taken. Pure."""

import re
from collections.abc import Iterator
from typing import Final

from stoker_builder.report.document import Report
from stoker_builder.report.html.drawing import table
from stoker_builder.report.html.markup import Markup, join, tag
from stoker_contract.manifest import DataDigest

# of the hundred features of a processor, those that decide which kernels run
_TELLING: Final = re.compile(r"avx|amx|fma|f16c|sse4|asimd|sve|i8mm|bf16|fphp")


def section(report: Report) -> Markup:
    """Everything that a figure of this page depends on."""
    facts = [
        join((tag("dt", name), tag("dd", value))) for name, value in _facts(report) if str(value)
    ]
    parts = [tag("h2", "Provenance"), tag("dl", *facts, class_="provenance")]
    if report.artifacts:
        parts += [tag("h3", "Files"), _files(report)]
    if report.seconds:
        rows = [(step, f"{seconds:.1f}") for step, seconds in report.seconds.items()]
        took = table(("step", "seconds"), rows, caption="How long the build took")
        parts.append(tag("details", tag("summary", "How long the build took"), took))
    return join(parts)


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    data, machine, seen = report.data, report.machine, report.conditions
    yield "Release", f"{report.release}, counter {report.counter}"
    yield "Model", join((f"{report.source.kind}, ", tag("code", report.source.digest)))
    for note in report.source.notes:
        yield "", note
    yield "Data", data.name
    yield "Preprocessing", data.preprocessing
    yield "Calibrated on", _digest(data.calibration)
    if data.selection is not None and data.selection.samples:
        yield "Chosen on", _digest(data.selection)
    yield "Certified on", _digest(data.certification)
    if data.duplicates_left_out:
        yield "Left out", f"{data.duplicates_left_out} duplicates"
    yield "Gate", _gate(report)
    memory = f"{machine.memory_bytes / 1e9:.0f} GB"
    yield "Machine", f"{machine.cpu_model}, {machine.cores} cores, {memory}, Linux {machine.kernel}"
    yield "Instruction sets", " ".join(name for name in machine.isa if _TELLING.match(name))
    versions = (f"{name} {version}" for name, version in sorted(machine.runtimes.items()))
    yield "Software", ", ".join([f"Python {machine.python}", *versions])
    yield "While measuring", "; ".join(_conditions(report))
    if seen.governor:
        yield "Frequency governor", seen.governor


def _gate(report: Report) -> str:
    gates = report.gates
    kind = "the bound of the loss" if gates.gate == "bound" else "the loss that was seen"
    unit = "% of what FP32 reaches" if gates.relative else "points"
    guard = "" if gates.slice_budget is None else f"; any slice within {100 * gates.slice_budget:g}"
    skipped = "; SKIPPED" if gates.skipped else ""
    within = f"{kind} within {100 * gates.budget:g} {unit} at {gates.confidence:.0%}"
    return f"{gates.metric}: {within}{guard}{skipped}"


def _conditions(report: Report) -> Iterator[str]:
    seen = report.conditions
    yield f"{seen.busy_share:.0%} of the samples beside busy neighbours"
    if seen.spin_drift is not None:
        yield f"a fixed piece of work took up to {seen.spin_drift:.0%} longer than at its fastest"
    if seen.throttle_events is not None:
        yield f"slowed down for heat {seen.throttle_events} times"
    if seen.temperature_c is not None:
        yield f"at most {seen.temperature_c:.0f} °C"
    if seen.frequency_mhz is not None:
        low, high = seen.frequency_mhz
        yield f"{low:.0f} to {high:.0f} MHz"


def _digest(part: DataDigest) -> Markup:
    note = f" ({part.note})" if part.note else ""
    return join((f"{part.samples} samples{note}, ", tag("code", part.digest)))


def _files(report: Report) -> Markup:
    facts = [
        join((tag("dt", one.target.name), tag("dd", f"{one.path}, {one.length:,} bytes, ", digest)))
        for one in report.artifacts
        for digest in (tag("code", one.digest),)
    ]
    return tag("dl", *facts, class_="provenance")
