"""Drawing the result of ``stoker bench``."""

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stoker_builder.benchmark.document import BenchResult, Measured
from stoker_builder.report.words import milliseconds
from stoker_cli.printable import printable

_PIPED_WIDTH: Final = 120
_NARROW: Final = 100


def show(result: BenchResult) -> None:
    """Print the figures, and what to know about them."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    console.print()
    console.print(_table(result, wide=console.width >= _NARROW))
    console.print(Text(printable(f"  {result.machine}; batch as given"), style="dim"))
    for one in result.measured:
        for line in _notes(one):
            console.print(Text(printable(f"  {one.name}: {line}"), style="dim"))
    for refusal in result.conditions.refusals:
        console.print(Text(printable(f"  do not quote this: {refusal}"), style="bold yellow"))


def _table(result: BenchResult, *, wide: bool) -> Table:
    rated = any(one.at_rate for one in result.measured)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("")
    columns = ["p50 ms", "p95 ms", "p99 ms", "p99 at most"]
    columns += ["wait p99", "answered/s"] if rated else ["faster by"]
    columns += ["samples", "runtime"] if wide else []
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for one in result.measured:
        cells = _cells(one)
        table.add_row(printable(one.name), *(cells[column] for column in columns))
    return table


def _cells(one: Measured) -> dict[str, str]:
    latency, rate, versus = one.latency, one.at_rate, one.versus_first
    faster = ""
    if versus is not None:
        bounds = "" if versus.low is None else f" [{versus.low:.2f}, {versus.high:.2f}]"
        faster = f"{versus.ratio:.2f}x{bounds}"
    threads = "" if one.threads is None else f", {one.threads} thr"
    return {
        "p50 ms": milliseconds(latency.p50_ms),
        "p95 ms": milliseconds(latency.p95_ms),
        "p99 ms": milliseconds(latency.p99_ms),
        "p99 at most": milliseconds(latency.p99_high_ms) or "?",
        "faster by": faster,
        "wait p99": milliseconds(rate.wait.p99_ms) if rate else "",
        "answered/s": f"{rate.answered_per_s:.1f} of {rate.offered_per_s:g}" if rate else "",
        "samples": str(latency.samples),
        "runtime": f"{one.runtime}{threads}",
    }


def _notes(one: Measured) -> list[str]:
    notes = []
    if one.at_rate is None and not one.stable:
        notes.append("p99 is not known that closely yet; give it more time with --limit-s")
    if one.at_rate is not None and one.at_rate.saturated:
        notes.append("can not keep up with this rate: the queue only grew")
    if one.at_rate is not None and one.at_rate.unanswered:
        notes.append(f"{one.at_rate.unanswered} requests were never sent, time ran out")
    if one.at_rate is not None and one.at_rate.failed:
        notes.append(f"{one.at_rate.failed} requests were answered with an error")
    if one.served:
        notes.append("measured from outside: the way to the server and its queue are part of it")
    return notes
