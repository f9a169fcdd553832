"""What the commands about rollouts, devices and the fleet have in common."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stoker_fleet.location import DEFAULT_PATH, ENVIRONMENT

if TYPE_CHECKING:
    from stoker_fleet.config import FleetConfig
    from stoker_fleet.store.schema import Store

Config = Annotated[
    Path | None,
    typer.Option("--config", help=f"The fleet's configuration; ./fleet.toml or ${ENVIRONMENT}."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_fleet(config: Path | None) -> "tuple[FleetConfig, Store]":
    """Read the configuration and open the fleet's store."""
    from stoker_fleet.config import load_config  # noqa: PLC0415  --help should not pay for these
    from stoker_fleet.store.schema import Store  # noqa: PLC0415

    path = config or Path(os.environ.get(ENVIRONMENT) or DEFAULT_PATH)
    settings = load_config(path)
    return settings, Store(settings.database)


def warn_without_controller(config: "FleetConfig") -> None:
    """Say on stderr that what is shown may be old."""
    from stoker_fleet.lock import is_controller_running  # noqa: PLC0415

    if not is_controller_running(config.database):
        typer.echo("No controller is running: this is what was known when it ended.", err=True)


def plain(seconds_iso: str | None) -> str:
    """A time as people read it, to the second."""
    return seconds_iso[:19].replace("T", " ") if seconds_iso else "-"
