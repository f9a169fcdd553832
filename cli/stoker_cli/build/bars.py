"""What ``stoker build`` shows while it works: a bar per step, on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

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
from rich.text import Text


@dataclass(frozen=True, slots=True)
class _Bar:
    progress: Progress
    task: TaskID

    def advance(self, steps: float = 1) -> None:
        self.progress.advance(self.task, steps)

    def reach(self, steps: float) -> None:
        """So many of the steps are done in all."""
        self.progress.update(self.task, completed=steps)


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
