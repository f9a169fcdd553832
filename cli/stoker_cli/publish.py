"""``stoker publish``: sign a release folder into the image repository."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stoker_cli.key import DEFAULT_KEYS, DEFAULT_REPOSITORY, AsJson, Keys, Repository

if TYPE_CHECKING:
    from stoker_trust.image_repository import Published

app = typer.Typer()


@app.command()
def publish(
    release: Annotated[Path, typer.Argument(help="The folder that `stoker build` wrote.")],
    keys: Keys = DEFAULT_KEYS,
    repository: Repository = DEFAULT_REPOSITORY,
    *,
    as_json: AsJson = False,
) -> None:
    """Sign a release into the image repository; devices see all of it or nothing.

    With throw-away keys the published manifest says `dev`, which a production device refuses.
    """
    from stoker_trust.image_repository import ImageRepository  # noqa: PLC0415  --help should not pay for these
    from stoker_trust.keys import open_keyring  # noqa: PLC0415

    published = ImageRepository(repository, open_keyring(keys)).publish(release, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(as_object(published)))
        return
    mark = " (dev)" if published.dev else ""
    if published.changed:
        typer.echo(f"Published {published.release}{mark}, counter {published.counter}.")
        typer.echo(f"Next: stoker rollout create {published.release} --to all --slot SLOT")
    else:
        typer.echo(f"{published.release}{mark} was published before, byte for byte the same.")


def as_object(published: "Published") -> dict[str, object]:
    """A published release as JSON."""
    return {**asdict(published), "manifest": published.manifest.to_object()}
