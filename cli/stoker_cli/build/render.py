"""What ``stoker build`` shows: a bar per step while it works, one table at the end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from stoker_builder.bench import BuildResult
from stoker_builder.latency.candidates import BASELINES
from stoker_builder.latency.stats import LatencyStats
from stoker_builder.report import cells
from stoker_builder.rows import Mark, Row

_STYLES = {
    Mark.REFERENCE: "",
    Mark.PASS: "green",
    Mark.FAIL: "red",
    Mark.INCONCLUSIVE: "yellow",
    Mark.NOT_FUSED: "red",
    Mark.NOT_JUDGED: "dim",
    Mark.SKIPPED: "magenta",
}


_WIDE = 92  # columns that all figures need
_PIPED_WIDTH = 120


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table; a narrow terminal shows only what it must."""

    title: str
    always: bool = True


_COLUMNS = (
    _Column(""),
    _Column("verdict"),
    _Column("MB"),
    _Column("p50 ms"),
    _Column("p99 ms", always=False),
    _Column("vs eager"),
    _Column("vs tuned", always=False),
    _Column("loss pp"),
    _Column("bound"),
    _Column("int8", always=False),
)


@dataclass(frozen=True, slots=True)
class _Bar:
    progress: Progress
    task: TaskID

    def advance(self, steps: float = 1) -> None:
        self.progress.advance(self.task, steps)


class Bars:
    """The builder's ``Progress`` as bars on standard error, so that ``--json`` stays clean."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            console=self._console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, title: str, total: float) -> Iterator[_Bar]:
        """Show a bar; a step that ends early is shown as done."""
        task = self._progress.add_task(title, total=total)
        yield _Bar(self._progress, task)
        self._progress.update(task, completed=total)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(Text(f"  {text}", style="dim"))


def show(result: BuildResult) -> None:
    """Print the table of a finished build, and what ships."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console = Console(soft_wrap=True, width=_PIPED_WIDTH)
    console.print()
    console.print(_table(result, wide=console.width >= _WIDE))
    _captions(console, result)
    _refusals(console, result)
    _ships(console, result)
    sys.stdout.flush()


def _captions(console: Console, result: BuildResult) -> None:
    accuracies = (artifact.accuracy for artifact in result.manifest.artifacts)
    metric = next((accuracy.metric for accuracy in accuracies if accuracy), "not judged")
    certified = len(result.split.certification)
    for line in (
        f"{result.machine.summary}; one thread, batch 1, interleaved",
        f"{metric} on {certified} held-out samples; bound at 95 %",
    ):
        console.print(Text(f"  {line}", style="dim"))
    if result.timings.caveat:
        console.print(Text(f"  {result.timings.caveat}", style="yellow"))
    if result.data_note:
        console.print(Text(f"  {result.data_note}", style="dim"))


def _refusals(console: Console, result: BuildResult) -> None:
    refused = [row for row in result.rows if row.why and row.mark is not Mark.REFERENCE]
    if refused:
        console.print(Text("\n  Why not", style="bold"))
    for row in refused:
        line = Text(f"  {row.target} {row.candidate}: ", style=_STYLES[row.mark])
        console.print(line.append(row.why, style="not bold default"))


def _ships(console: Console, result: BuildResult) -> None:
    manifest = result.manifest
    console.print(Text("\n  Ships", style="bold"))
    for artifact in manifest.artifacts:
        line = Text(f"  {artifact.target.name}: {artifact.precision}", style="bold green")
        where = artifact.accuracy.certified_on if artifact.accuracy else "nothing"
        about = f"  {artifact.length / 1e6:.1f} MB, certified on {where}"
        console.print(line.append(about, style="not bold default"))
    console.print(Text(f"\n  {manifest.release} is in {result.output}", style="bold"))
    if manifest.dev:
        warning = "the gates were skipped: a production device refuses this release"
        console.print(Text(f"  {warning}", style="bold magenta"))


def _table(result: BuildResult, *, wide: bool) -> Table:
    columns = [column for column in _COLUMNS if wide or column.always]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in columns:
        justify: JustifyMethod = "left" if column.title in {"", "verdict"} else "right"
        table.add_column(column.title, justify=justify, no_wrap=True)
    for name, stats in result.timings.stats.items():
        if name in BASELINES:
            cells = _baseline(BASELINES[name], stats)
            table.add_row(*(cells.get(column.title, "") for column in columns), style="dim")
    for target in dict.fromkeys(row.target for row in result.rows):
        table.add_section()
        table.add_row(Text(target, style="bold"))
        for row in result.rows:
            if row.target == target:
                filled = _candidate(row)
                style = "bold green" if row.shipped else None
                table.add_row(*(filled[column.title] for column in columns), style=style)
    return table


def _baseline(title: str, stats: LatencyStats) -> dict[str, str]:
    return {"": title, "p50 ms": f"{stats.p50_ms:.2f}", "p99 ms": f"{stats.p99_ms:.2f}"}


def _candidate(row: Row) -> dict[str, str | Text]:
    _, candidate, verdict, size, p50, p99, eager, tuned, _, share, _ = cells(row)
    accuracy = None if row.mark is Mark.REFERENCE else row.accuracy
    return {
        "": f"  {candidate}",
        "verdict": Text(verdict, style="bold green" if row.shipped else _STYLES[row.mark]),
        "MB": size,
        "p50 ms": p50,
        "p99 ms": p99,
        "vs eager": eager,
        "vs tuned": tuned,
        "loss pp": f"{100 * accuracy.loss:+.2f}" if accuracy else "",
        "bound": f"{100 * accuracy.loss_bound:+.2f}" if accuracy else "",
        "int8": share,
    }
