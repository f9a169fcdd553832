"""Drawing what ``stoker diff`` found."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from stoker_builder.inspection.differences import Difference
from stoker_cli.printable import printable

_MOST: Final = 12  # lines for one group; --json has them all
_DIGEST: Final = 12
_LONG: Final = 60


def show(found: Sequence[Difference]) -> None:
    """Print the differences, grouped by where they are."""
    console = Console(highlight=False, soft_wrap=True)
    if not found:
        console.print("No differences.")
        return
    groups: dict[tuple[str, ...], list[Difference]] = defaultdict(list)
    for one in found:
        groups[one.where[:-1]].append(one)
    for where, members in groups.items():
        if where:
            console.print(Text(printable(" / ".join(where)), style="bold"))
        for one in members[:_MOST]:
            console.print(_line(one, indent="  " if where else ""))
        if len(members) > _MOST:
            console.print(Text(f"  and {len(members) - _MOST} more", style="dim"))


def _line(one: Difference, indent: str) -> Text:
    name = printable(one.where[-1])
    if one.before is None:
        return Text(f"{indent}+ {name}: {_said(one.after)}", style="green")
    if one.after is None:
        return Text(f"{indent}- {name}: {_said(one.before)}", style="red")
    return Text.assemble(
        f"{indent}{name}: ",
        (_said(one.before), "red"),
        " → ",
        (_said(one.after), "green"),
        (_change(one), "dim"),
    )


def _said(value: str | float | None) -> str:
    if isinstance(value, str):
        is_digest = len(value) == 64 and not value.strip("0123456789abcdef")  # noqa: PLR2004  SHA-256
        short = value[:_DIGEST] if is_digest else value
        return printable(short if len(short) <= _LONG else f"{short[: _LONG - 1]}…")
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def _change(one: Difference) -> str:
    before, after = one.before, one.after
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return ""
    # a share of an accuracy, or of a loss that may be zero, says nothing
    if not before or "accuracy" in one.where:
        return ""
    return f" ({(after - before) / abs(before):+.1%})"
