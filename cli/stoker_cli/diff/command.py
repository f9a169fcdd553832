"""The command line of ``stoker diff``. Its exit status is that of ``diff``."""

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

EXIT_DIFFERENT: Final = 1
EXIT_TROUBLE: Final = 2

_Thing = Annotated[Path, typer.Argument(help="a release folder, a manifest or an .onnx file")]


@app.command()
def diff(
    before: _Thing,
    after: _Thing,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
) -> None:
    """Show what is different. Exit status 0: nothing, 1: something, 2: trouble."""
    from stoker_builder.errors import BuildError  # noqa: PLC0415  --help should not pay for these
    from stoker_builder.inspection.differences import differences  # noqa: PLC0415
    from stoker_builder.inspection.look import look_at  # noqa: PLC0415
    from stoker_cli.main import explain  # noqa: PLC0415

    try:
        found = differences(look_at(before), look_at(after))
    except BuildError as error:
        explain(error)
        raise typer.Exit(EXIT_TROUBLE) from None
    if as_json:
        told = {"same": not found, "differences": [one.to_object() for one in found]}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        from stoker_cli.diff.view import show  # noqa: PLC0415  imports rich

        show(found)
    if found:
        raise typer.Exit(EXIT_DIFFERENT)
