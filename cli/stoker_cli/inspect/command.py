"""The command line of ``stoker inspect``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def inspect(
    what: Annotated[Path, typer.Argument(help="a release folder, a manifest or an .onnx file")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
) -> None:
    """Show what is in a release, a manifest or an ONNX file; nothing of it is run."""
    from stoker_builder.inspection.look import look_at  # noqa: PLC0415  imports onnx

    found = look_at(what)
    if as_json:
        sys.stdout.write(json.dumps(found.to_object(), indent=2) + "\n")
        return
    from stoker_cli.inspect.view import show  # noqa: PLC0415  imports rich

    show(found)
