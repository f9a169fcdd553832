"""``stoker key``: the signing keys, without the words of TUF."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stoker_cli.errors import CommandError

if TYPE_CHECKING:
    from stoker_trust.keys import Keyring

app = typer.Typer(no_args_is_help=True, help="Make and show the signing keys.")

Keys = Annotated[Path, typer.Option("--keys", help="Folder of the signing keys.")]
Repository = Annotated[Path, typer.Option("--repository", help="Folder of the image repository.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_KEYS: Final = Path("keys")
DEFAULT_REPOSITORY: Final = Path("repository")


@app.command()
def init(
    keys: Keys = DEFAULT_KEYS,
    repository: Repository = DEFAULT_REPOSITORY,
    *,
    dev: Annotated[
        bool, typer.Option("--dev", help="Throw-away keys: what they sign is marked `dev`.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make keys, and an empty repository that they sign. What is there already is kept."""
    if not dev:
        msg = "production keys need a root of 2 of 3 offline keys, which this version can not make"
        hint = "For development and demonstrations: stoker key init --dev"
        raise CommandError(msg, hint=hint)
    from stoker_trust.initialise import init_dev  # noqa: PLC0415  --help should not pay for these

    keyring, new = init_dev(keys, repository, datetime.now(UTC))
    anchors = {name: str(keyring.anchor(name)) for name in ("image-root", "director-root")}
    if as_json:
        typer.echo(json.dumps({"keys": str(keys), "new": new, "dev": True, "anchors": anchors}))
        return
    typer.echo(f"{'Made throw-away keys in' if new else 'Using the keys in'} {keys}.")
    typer.echo(f"The image repository is {repository}; publish with: stoker publish RELEASE_DIR")
    typer.echo("Copy to every device, and set allow_dev there:")
    for path in anchors.values():
        typer.echo(f"  {path}")


@app.command()
def status(
    keys: Keys = DEFAULT_KEYS,
    repository: Repository = DEFAULT_REPOSITORY,
    *,
    as_json: AsJson = False,
) -> None:
    """Show which keys are at hand and how long the repository stays fresh."""
    from stoker_trust.image_repository import ImageRepository  # noqa: PLC0415  --help should not pay for these
    from stoker_trust.keys import open_keyring  # noqa: PLC0415

    keyring = open_keyring(keys)
    expires = ImageRepository(repository, keyring).timestamp_expires
    roles = {role: len(keyring.signers(role)) for role in keyring.thresholds}
    if as_json:
        value = {"keys": str(keys), "dev": keyring.dev, "roles": roles}
        typer.echo(json.dumps({**value, "repository_fresh_until": expires.isoformat()}))
        return
    typer.echo(f"{keys}: {_kind(keyring)}")
    for role, count in roles.items():
        typer.echo(f"  {role:<17} {count} key{'s' if count > 1 else ''}")
    typer.echo(f"{repository}: fresh until {expires:%Y-%m-%d %H:%M} UTC")
    if expires < datetime.now(UTC):
        msg = "the repository has expired, and no device accepts it"
        hint = f"stoker repository refresh {repository} --keys {keys}"
        raise CommandError(msg, hint=hint)


def _kind(keyring: "Keyring") -> str:
    return "throw-away keys (dev)" if keyring.dev else "production keys"
