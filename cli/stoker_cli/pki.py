"""``stoker pki``: certificates for development."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from stoker_cli.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="Make certificates for devices and broker.")

Folder = Annotated[Path, typer.Option("--dir", help="Folder of authority and certificates.")]
DEFAULT: Final = Path("pki")


@app.command()
def init(
    folder: Folder = DEFAULT,
    host: Annotated[
        list[str] | None, typer.Option(help="Another name or address of the broker.")
    ] = None,
) -> None:
    """Make a certificate authority, and the broker's certificate."""
    from stoker_trust.pki import BROKER, CA, LOOPBACK, DevAuthority  # noqa: PLC0415  --help should not pay for these

    authority = DevAuthority(folder)
    new = authority.create(datetime.now(UTC), hosts=(*LOOPBACK, *(host or ())))
    typer.echo(f"{'Made' if new else 'Keeping'} {authority.certificate(CA)}")
    typer.echo(f"The broker's certificate: {authority.certificate(BROKER)}")
    typer.echo("Next: stoker pki issue controller; stoker pki issue DEVICE")


@app.command()
def issue(
    device: Annotated[str, typer.Argument(help="The device id, or `controller`.")],
    folder: Folder = DEFAULT,
) -> None:
    """Make the key and certificate of a device: its id is the common name."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  --help should not pay for these

    from stoker_contract.names import Slug  # noqa: PLC0415
    from stoker_trust.pki import DevAuthority  # noqa: PLC0415

    try:
        TypeAdapter(Slug).validate_python(device)
    except ValidationError:
        msg = f"{device!r} can not be a device id: lower-case letters, digits, '.', '-' and '_'"
        raise CommandError(msg) from None
    authority = DevAuthority(folder)
    authority.issue(device, datetime.now(UTC))
    typer.echo(f"{authority.certificate(device)}\n{authority.key(device)}")
