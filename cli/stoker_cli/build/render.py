"""What ``stoker build`` and ``stoker report`` show: one table, why not, and what ships."""

import sys
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from stoker_builder.report.document import Baseline, Candidate, Report
from stoker_builder.report.words import (
    captions,
    cells,
    certified_on,
    compared_with,
    milliseconds,
    title,
    warnings,
)
from stoker_builder.rows import Mark
from stoker_cli.printable import printable

_STYLES: Final = {
    Mark.REFERENCE: "",
    Mark.PASS: "green",
    Mark.FAIL: "red",
    Mark.INCONCLUSIVE: "yellow",
    Mark.NOT_FUSED: "red",
    Mark.SCREENED: "dim",
    Mark.NOT_JUDGED: "dim",
    Mark.SKIPPED: "magenta",
}
_PIPED_WIDTH: Final = 120
_GAP: Final = 2
# what a narrow terminal does without, the least missed first
_DISPENSABLE: Final = ("RAM MB", "vs tuned", "p95 ms", "load ms", "MB", "p99 ms", "int8", "loss pp")


def show(report: Report, output: Path) -> None:
    """Print the table of a finished build, and what ships.

    Args:
        report: of the build.
        output: the release folder.
    """
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console = Console(soft_wrap=True, highlight=False, width=_PIPED_WIDTH)
    console.print()
    console.print(_table(report, console.width))
    for line in captions(report):
        console.print(Text(f"  {printable(line)}", style="dim"))
    for line in warnings(report):
        console.print(Text(f"  {printable(line)}", style="bold yellow"))
    _refusals(console, report)
    _ships(console, report, output)
    sys.stdout.flush()


def _refusals(console: Console, report: Report) -> None:
    refused = [row for row in report.candidates if row.why and row.verdict is not Mark.REFERENCE]
    if refused:
        console.print(Text("\n  Why not", style="bold"))
    for row in refused:
        line = Text(printable(f"  {row.target} {title(row)}: "), style=_STYLES[row.verdict])
        console.print(line.append(printable(row.why), style="not bold default"))


def _ships(console: Console, report: Report, output: Path) -> None:
    console.print(Text("\n  Ships", style="bold"))
    for target in report.targets:
        for row in report.all_shipped_for(target):
            line = Text(printable(f"  {target}: {title(row)}"), style="bold green")
            about = f"  {row.size_bytes / 1e6:.1f} MB, certified on {certified_on(row)}"
            console.print(line.append(printable(about), style="not bold default"))
    console.print()
    console.print(Text(printable(f"  {report.release} is in {output}"), style="bold"))


def _table(report: Report, width: int) -> Table:
    rows = {row: cells(row) for row in report.candidates}
    baselines = [_baseline(entry) for entry in compared_with(report)]
    columns = _columns([*rows.values(), *baselines], width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in columns:
        justify: JustifyMethod = "left" if column in {"", "verdict"} else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for filled in baselines:
        table.add_row(*(printable(filled.get(column, "")) for column in columns), style="dim")
    for target in report.targets:
        table.add_section()
        table.add_row(Text(printable(target), style="bold"))
        for row in report.rows_of(target):
            style = "bold green" if row.shipped else None
            table.add_row(*(_cell(row, column, rows[row]) for column in columns), style=style)
    return table


def _columns(rows: list[dict[str, str]], width: int) -> list[str]:
    """The columns that say something and fit."""
    every = [column for column in rows[0] if any(row.get(column) for row in rows)]
    for dispensable in ("", *_DISPENSABLE):
        every = [column for column in every if column != dispensable or not column]
        needed = sum(
            max(len(column), *(len(row.get(column, "")) for row in rows)) + _GAP for column in every
        )
        if needed <= width:
            break
    return every


def _cell(row: Candidate, column: str, filled: dict[str, str]) -> Text:
    text = printable(filled[column])
    if column == "verdict":
        return Text(text, style="bold green" if row.shipped else _STYLES[row.verdict])
    return Text(f"  {text}" if column == "" else text)


def _baseline(entry: Baseline) -> dict[str, str]:
    latency = entry.latency
    return {
        "": entry.title,
        "p50 ms": milliseconds(latency.p50_ms),
        "p95 ms": milliseconds(latency.p95_ms),
        "p99 ms": milliseconds(latency.p99_ms),
    }
