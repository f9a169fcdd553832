"""What the demo says on the terminal, and only that."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stoker_cli.demo.promises import Promise, Scorecard

_INDENT: Final = "   "


class Narrator:
    """Steps, the commands they run, facts, promises and the summary."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._steps = 0

    def title(self, text: str, detail: str) -> None:
        """Say what this is."""
        self.console.print(Panel(Text(detail), title=f"[bold]{text}", border_style="cyan"))

    def step(self, text: str) -> None:
        """Begin the next step."""
        self._steps += 1
        self.console.print()
        self.console.print(f"[bold cyan]{self._steps:>2}[/] [bold]{text}")

    def command(self, arguments: Sequence[str]) -> None:
        """Show a command that is being run, as one would type it."""
        self.console.print(Text(f"{_INDENT}$ {' '.join(arguments)}", style="dim"), soft_wrap=True)

    def fact(self, text: str) -> None:
        """Say something that was seen."""
        self.console.print(Text(f"{_INDENT}{text}"), soft_wrap=True)

    def promise(self, promise: Promise) -> None:
        """Show one promise and what became of it."""
        mark = "[bold green]✓[/]" if promise.held else "[bold red]✗[/]"
        line = Text.from_markup(f" {mark} ")
        line.append(promise.text)
        line.append(f"  {promise.measured}", style="bold" if promise.held else "bold red")
        self.console.print(line, soft_wrap=True)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show that something is going on, where somebody looks."""
        with self.console.status(f"[dim]{text}…"):
            yield

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show figures."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(_indented(table))

    def summary(self, scorecard: Scorecard, seconds: float) -> None:
        """Show all promises once more, and the verdict."""
        table = Table(title="What was promised, and what was measured", title_justify="left")
        table.add_column("")
        table.add_column("promise", overflow="fold")
        table.add_column("measured", overflow="fold")
        for promise in scorecard.promises:
            mark = "[green]held[/]" if promise.held else "[bold red]BROKEN[/]"
            table.add_row(mark, Text(promise.text), Text(promise.measured))
        self.console.print()
        self.console.print(table)
        broken = sum(not promise.held for promise in scorecard.promises)
        verdict = (
            f"[bold green]All {len(scorecard.promises)} promises held[/]"
            if scorecard.all_held
            else f"[bold red]{broken} of {len(scorecard.promises)} promises were broken[/]"
        )
        self.console.print(f"{verdict} in {seconds:.0f} s.")


def _indented(table: Table) -> Table:
    outer = Table.grid()
    outer.add_column(width=len(_INDENT))
    outer.add_column()
    outer.add_row("", table)
    return outer
