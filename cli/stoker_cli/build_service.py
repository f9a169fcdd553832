"""What the commands that talk to a build service have in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from stoker_builder.workers.client import ServiceClient

DEFAULT_URL: Final = "http://127.0.0.1:8090"
DEFAULT_TOKEN: Final = Path("builds.token")

Builds = Annotated[
    str, typer.Option("--builds", help="URL of the build service.", envvar="STOKER_BUILDS")
]
TokenFile = Annotated[
    Path,
    typer.Option(help="File with the token of the service.", envvar="STOKER_BUILDS_TOKEN_FILE"),
]
Ca = Annotated[
    Path | None,
    typer.Option("--ca", help="Whom to trust, a PEM file; else whom the system trusts."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_service(builds: str, token_file: Path, ca: Path | None) -> "ServiceClient":
    """The service, by the options of a command."""
    from stoker_builder.workers.client import ServiceClient, read_token  # noqa: PLC0415  --help should not pay for it

    return ServiceClient(builds, read_token(token_file), ca)
