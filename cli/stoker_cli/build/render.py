"""What ``stoker build`` shows: a bar per step while it works, one table at the end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
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
from stoker_builder.latency import LatencyStats
from stoker_builder.report import cells
from stoker_builder.rows import Mark, Row
from stoker_builder.timing import BASELINES

_STYLES = {
    Mark.REFERENCE: "",
    Mark.PASS: "green",
    Mark.FAIL: "red",
    Mark.INCONCLUSIVE: "yellow",
    Mark.NOT_JUDGED: "dim",
    Mark.SKIPPED: "magenta",
}


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
    console = Console()
    manifest = result.manifest
    console.print()
    console.print(_table(result))
    console.print(
        Text(f"  {result.machine.summary}; one thread, batch 1, interleaved", style="dim")
    )
    basis = next(
        (a.accuracy.metric for a in manifest.artifacts if a.accuracy is not None), "not judged"
    )
    certified = len(result.split.certification)
    console.print(Text(f"  {basis} on {certified} held-out samples", style="dim"))
    for artifact in manifest.artifacts:
        line = Text("\n  ships  ", style="bold green")
        line.append(f"{artifact.target.name}: {artifact.precision} ", style="bold")
        where = artifact.accuracy.certified_on if artifact.accuracy else "nothing"
        line.append(f"({artifact.length / 1e6:.1f} MB), certified on {where}", style="not bold")
        console.print(line, end="")
    console.print(Text(f"\n\n  {manifest.release} is in {result.output}", style="bold"))
    if manifest.dev:
        warning = "the gates were skipped: a production device refuses this release"
        console.print(Text(f"  {warning}", style="bold magenta"))
    sys.stdout.flush()


def _table(result: BuildResult) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for title in ("MB", "p50 ms", "p99 ms", "vs eager", "tuned", "loss pp", "bound", "int8"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why not", overflow="fold", ratio=1)
    for name, stats in result.timings.stats.items():
        if name in BASELINES:
            table.add_row(*_baseline(BASELINES[name], stats), style="dim")
    for target in dict.fromkeys(row.target for row in result.rows):
        table.add_section()
        table.add_row(Text(target, style="bold"))
        for row in result.rows:
            if row.target == target:
                table.add_row(*_candidate(row), style="bold green" if row.shipped else None)
    return table


def _baseline(title: str, stats: LatencyStats) -> tuple[str, ...]:
    return (title, "", "", f"{stats.p50_ms:.2f}", f"{stats.p99_ms:.2f}")


def _candidate(row: Row) -> tuple[str | Text, ...]:
    _, candidate, verdict, size, p50, p99, eager, tuned, _, share, why = cells(row)
    accuracy = None if row.mark is Mark.REFERENCE else row.accuracy
    return (
        f"  {candidate}",
        Text(verdict, style="bold green" if row.shipped else _STYLES[row.mark]),
        size,
        p50,
        p99,
        eager,
        tuned,
        f"{100 * accuracy.loss:+.2f}" if accuracy else "",
        f"{100 * accuracy.loss_bound:+.2f}" if accuracy else "",
        share,
        why,
    )
