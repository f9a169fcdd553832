"""``stoker worker``: builds plans for the boards that are like this one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from stoker_cli.build_service import (
    DEFAULT_TOKEN,
    DEFAULT_URL,
    Builds,
    Ca,
    TokenFile,
    open_service,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="what it builds for, repeatable; else all that it can"),
]


@app.command()
def worker(  # noqa: PLR0913  one parameter per option
    *,
    broker: Annotated[
        str, typer.Option(help="URL of the broker that the service uses")
    ] = "redis://127.0.0.1:6379/0",
    builds: Builds = DEFAULT_URL,
    token_file: TokenFile = DEFAULT_TOKEN,
    ca: Ca = None,
    classes: _Classes = None,
    name: Annotated[
        str, typer.Option(help="its own among all workers; else that of the host")
    ] = "",
    scratch: Annotated[
        Path | None,
        typer.Option(help="where jobs have their folders", file_okay=False, exists=True),
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="only print what this machine is, as JSON")
    ] = False,
) -> None:
    """Build plans for the boards that are like this one, until SIGTERM or Ctrl-C."""
    from stoker_builder.workers.describe import describe_worker, detect_software  # noqa: PLC0415  --help should not pay for it

    described = describe_worker(name, classes or ())
    if describe:
        sys.stdout.write(described.encode().decode() + "\n")
        return
    from stoker_builder.workers.app import run_worker  # noqa: PLC0415  an extra of its own
    from stoker_builder.workers.queues import make_app  # noqa: PLC0415
    from stoker_builder.workers.worker import Worker  # noqa: PLC0415
    from stoker_cli.events import log_to_stderr  # noqa: PLC0415

    service, app_of_broker = open_service(builds, token_file, ca), make_app(broker)
    log_to_stderr()
    builder = Worker(service, described, scratch, look=detect_software)
    sys.exit(run_worker(app_of_broker, builder))
