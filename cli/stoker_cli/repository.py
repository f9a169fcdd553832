"""``stoker repository``: look at an image repository, refresh it, serve it."""

import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stoker_cli.errors import CommandError
from stoker_cli.key import DEFAULT_KEYS, DEFAULT_REPOSITORY, AsJson, Keys, Repository
from stoker_cli.publish import as_object

app = typer.Typer(no_args_is_help=True, help="Look at an image repository, or serve it.")


@app.command("list")
def list_releases(
    keys: Keys = DEFAULT_KEYS,
    repository: Repository = DEFAULT_REPOSITORY,
    *,
    as_json: AsJson = False,
) -> None:
    """List the published releases."""
    from stoker_trust.image_repository import ImageRepository  # noqa: PLC0415  --help should not pay for these
    from stoker_trust.keys import open_keyring  # noqa: PLC0415

    releases = ImageRepository(repository, open_keyring(keys)).releases()
    if as_json:
        typer.echo(json.dumps([as_object(release) for release in releases]))
        return
    for release in releases:
        mark = " (dev)" if release.dev else ""
        typer.echo(f"{release.release:<32} counter {release.counter}{mark}")
    if not releases:
        typer.echo("Nothing is published yet: stoker publish RELEASE_DIR")


@app.command()
def refresh(keys: Keys = DEFAULT_KEYS, repository: Repository = DEFAULT_REPOSITORY) -> None:
    """Sign what expires again. In production: once a day."""
    from stoker_trust.image_repository import ImageRepository  # noqa: PLC0415  --help should not pay for these
    from stoker_trust.keys import open_keyring  # noqa: PLC0415

    images = ImageRepository(repository, open_keyring(keys))
    images.refresh(datetime.now(UTC))
    typer.echo(f"{repository} is fresh until {images.timestamp_expires:%Y-%m-%d %H:%M} UTC.")


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="The repository.")] = DEFAULT_REPOSITORY,
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    rate_limit: Annotated[
        int | None,
        typer.Option(min=1, help="Bytes a second for each download, to see a slow link."),
    ] = None,
) -> None:
    """Serve a repository over HTTP with byte ranges, for development, until Ctrl-C."""
    from stoker_trust.serve import make_server  # noqa: PLC0415  --help should not pay for these

    if not (folder / "metadata").is_dir():
        msg = f"{folder} is no image repository"
        raise CommandError(msg, hint="Make one with: stoker key init --dev")
    with make_server(folder, host, port, rate_limit_bytes_per_s=rate_limit) as server:
        # SIGTERM ends us as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        typer.echo(f"Serving {folder} on http://{host}:{server.server_port}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
