"""``stoker report``: the report of a release again, in whichever form."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Form(StrEnum):
    """What the report looks like."""

    TABLE = "table"
    HTML = "html"
    MARKDOWN = "markdown"
    JSON = "json"


@app.command()
def report(
    release: Annotated[Path, typer.Argument(help="the folder that `stoker build` wrote")],
    *,
    form: Annotated[Form, typer.Option("--format", help="what it looks like")] = Form.TABLE,
    output: Annotated[
        Path | None, typer.Option(help="write it there instead of printing it", metavar="FILE")
    ] = None,
) -> None:
    """Show the report of a release again; it is drawn from report.json alone."""
    from stoker_builder.report import files  # noqa: PLC0415  --help should not pay for it

    found = files.read_report(release)
    if form is Form.TABLE and output is None:
        from stoker_cli.build.render import show  # noqa: PLC0415  imports rich

        show(found, release)
        return
    # a file is a page unless something else was asked for
    name = {Form.MARKDOWN: files.MARKDOWN, Form.JSON: files.JSON}.get(form, files.HTML)
    data = files.report_files(found)[name]
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        output.write_bytes(data)
